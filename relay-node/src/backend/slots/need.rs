//! What a request needs of a backend.

use std::sync::Arc;

use relay_protocol::Priority;
use relay_protocol::job::DEFAULT_TENANT;
use relay_protocol::task::{Engine, Task};

use crate::backend::cost::Kind;

/// What a request needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Need {
    /// What is to be done, with which model.
    pub kind: Kind,
    /// How much of it, in units that the same kind of work always has (seconds of sound, characters, pixels): backends
    /// take time in proportion. 1 if that cannot be known.
    pub units: f64,
    /// Whose it is: of those of one priority tenants share a backend by weight.
    pub tenant: Arc<str>,
    /// Order among those who wait.
    pub priority: Priority,
    /// It was begun before, maybe by a node that is no more: it goes before those of its tenant and priority that were not.
    pub is_begun: bool,
    /// Backends that failed this request before: taken last.
    pub avoid: Vec<String>,
    /// Those in `avoid` are not taken at all.
    pub is_strict: bool,
}

impl Need {
    /// What a job of the default tenant with this task and model needs that has no history.
    pub fn of(task: Task, model: Option<&str>) -> Self {
        let kind = Kind { task, model: model.map(str::to_owned) };
        let tenant = DEFAULT_TENANT.into();
        let (priority, avoid) = (Priority::Normal, Vec::new());
        Self { kind, units: 1.0, tenant, priority, is_begun: false, avoid, is_strict: false }
    }

    /// Whether the node itself does such work.
    pub(super) fn is_builtin(&self) -> bool {
        match self.kind.task.engine() {
            Engine::BuiltIn => true,
            Engine::Either => self.kind.model.is_none(),
            Engine::LocalAi => false,
        }
    }

    pub(super) fn avoids(&self, backend: &str) -> bool {
        self.avoid.iter().any(|avoided| avoided == backend)
    }
}
