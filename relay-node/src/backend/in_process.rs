//! The built-in tasks as a backend: each call on a blocking thread, ended when its caller goes away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use relay_protocol::{ErrorCode, Task};

use super::builtin::{self, BuiltinTask, Cancelled, Limits, MediaError, Progress, Source};
use super::slots::BUILTIN;
use super::{Backend, BackendError, Call, Output, OutputMedia, Update, Updates};
use crate::job::media::{Media, MediaBody};

/// Does the built-in tasks.
#[derive(Debug, Default)]
pub struct InProcess {
    limits: Limits,
}

#[async_trait]
impl Backend for InProcess {
    fn name(&self) -> &str {
        BUILTIN
    }

    fn measures(&self, task: Task) -> bool {
        // They go through the media from its first byte to its last; the others report stages.
        matches!(task, Task::Vad | Task::Loudness | Task::Waveform)
    }

    async fn call(&self, call: Call, updates: Updates) -> Result<Output, BackendError> {
        let task = BuiltinTask::of(call.task).ok_or_else(|| BackendError::Rejected {
            code: ErrorCode::NeedsLocalAi,
            reason: format!("task {} is not built in", call.task),
        })?;
        let (limits, gone) = (self.limits.clone(), Arc::new(AtomicBool::new(false)));
        let _sets_gone = SetWhenDropped(gone.clone());
        let work = move || {
            let source = open(&call.media)
                .map_err(|error| BackendError::Failed(format!("the input cannot be read: {error}")))?;
            let mut progress = Reporter { updates, gone };
            let output =
                builtin::run(task, &call.params, source, &limits, &mut progress).map_err(|error| rejected(&error))?;
            Ok(Output { result: output.result, media: output.media.map(media) })
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| BackendError::Failed(error.to_string()))?
    }
}

/// Ends the work when its caller is dropped.
struct SetWhenDropped(Arc<AtomicBool>);

impl Drop for SetWhenDropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Reporter {
    updates: Updates,
    gone: Arc<AtomicBool>,
}

impl Progress for Reporter {
    fn report(&mut self, fraction: f32) -> Result<(), Cancelled> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Cancelled);
        }
        // A reader that is behind misses this figure and gets the next.
        drop(self.updates.try_send(Update::Progress(fraction)));
        Ok(())
    }
}

/// A job's input as the signal processing reads it.
pub(super) fn open(media: &Media) -> std::io::Result<Source> {
    let mut source = match &media.body {
        MediaBody::Memory(bytes) => Source::from_bytes(bytes.clone()),
        MediaBody::File(path) => Source::from_file(std::fs::File::open(path)?)?,
    };
    if let Some(name) = &media.name {
        source = source.named(name.clone());
    }
    if let Some(media_type) = &media.media_type {
        source = source.declared_as(media_type.clone());
    }
    Ok(source)
}

fn media(media: builtin::OutputMedia) -> OutputMedia {
    OutputMedia { media_type: media.media_type.to_owned(), name: media.name, bytes: media.bytes }
}

/// What the signal processing refuses, nobody else could do either; what it cannot read, perhaps later.
pub(super) fn rejected(error: &MediaError) -> BackendError {
    if error.retryable() {
        return BackendError::Failed(error.to_string());
    }
    let known = ErrorCode::ALL.iter().copied().find(|code| code.as_str() == error.code());
    BackendError::Rejected { code: known.unwrap_or(ErrorCode::NotMedia), reason: error.to_string() }
}
