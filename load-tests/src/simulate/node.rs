//! One life of a simulated node: production code in a `LocalSet` of its own, which ends with it and stands still with it.

use std::future::Future;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::{Arc, OnceLock};
use std::task::Poll;

use object_store::ObjectStore;
use relay_node::doorless::{Doorless, Ports};
use relay_node::settings::Settings;
use relay_node::state::NodeState;
use relay_protocol::cluster::BackendInfo;
use relay_runtime::auth::Authenticator;
use relay_runtime::random::SeededRandom;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::backend::Backends;
use super::clock::VirtualClock;
use super::coordinators::Coordinators;
use super::gate::{Gate, Life};
use super::log::Engine;
use super::wire::SimWire;

/// Backends by name, with their slots and their models.
pub(super) const BACKENDS: [(&str, u32, &[&str]); 2] = [("http://one", 2, &["m1", "m2"]), ("http://two", 1, &["m1"])];

/// What all lives need.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) engine: Arc<Engine>,
    pub(super) backends: Arc<Backends>,
    pub(super) coordinators: Arc<Coordinators>,
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) settings: Settings,
}

/// A life.
pub(super) struct Node {
    pub(super) gate: Arc<Gate>,
    /// Gone when the life is over.
    local: Weak<LocalSet>,
    doorless: OnceLock<Doorless>,
    /// Whoever says hello without a token.
    pub(super) authenticator: Arc<Authenticator>,
}

impl Node {
    /// Begins a life; what drives it runs beside the caller.
    pub(super) async fn start(
        name: &str,
        around: &Surroundings,
        clock: VirtualClock,
        gate: Arc<Gate>,
        seed: u64,
    ) -> anyhow::Result<Rc<Self>> {
        let mut settings = around.settings.clone();
        settings.node.name = name.to_owned();
        let (backends, of_connect) = (around.backends.clone(), gate.clone());
        let slots_of = |url: &str| BACKENDS.iter().find(|(name, ..)| *name == url).map_or(0, |(_, slots, _)| *slots);
        let ports = Ports {
            log: around.engine.at(gate.clone()),
            clock: Arc::new(clock),
            random: Arc::new(SeededRandom::new(seed)),
            builtin: around.backends.at("builtin", settings.builtin_slots(), gate.clone()),
            connect: Box::new(move |info: &BackendInfo| {
                Ok(backends.at(&info.url, slots_of(&info.url), of_connect.clone()))
            }),
            store: around.store.clone(),
            coordinators: Box::new(SimWire::new(around.coordinators.clone(), gate.clone(), seed ^ 1)),
        };
        let authenticator = Arc::new(Authenticator::new(&settings.auth)?);
        let local = Rc::new(LocalSet::new());
        let weak = Rc::downgrade(&local);
        let node = Rc::new(Self { gate: gate.clone(), local: weak, doorless: OnceLock::new(), authenticator });
        tokio::task::spawn_local(drive(local, gate));
        let started = node.ask(async move { Doorless::start(settings, ports) }).await;
        if let Some(Ok(doorless)) = started {
            drop(node.doorless.set(doorless));
        }
        Ok(node)
    }

    /// Its state, once it has begun.
    pub(super) fn state(&self) -> Option<Arc<NodeState>> {
        self.doorless.get().map(|doorless| doorless.state.clone())
    }

    /// Runs something within the node; `None` if the life ends before it does.
    pub(super) async fn ask<T: 'static>(&self, work: impl Future<Output = T> + 'static) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        // Held no longer than this: with the last handle the life's tasks are dropped.
        self.local.upgrade()?.spawn_local(async move { drop(answer.send(work.await)) });
        answered.await.ok()
    }

    /// Ends in order.
    pub(super) async fn stop(&self, grace: std::time::Duration) {
        if let Some(doorless) = self.doorless.get().cloned() {
            self.ask(async move { doorless.stop(grace).await }).await;
        }
        self.gate.set(Life::Dead);
    }
}

/// Runs what belongs to a life while it is open, and drops it when it is over.
pub(super) async fn drive(local: Rc<LocalSet>, gate: Arc<Gate>) {
    {
        let mut over = pin!(local.run_until(std::future::pending::<()>()));
        loop {
            match gate.life() {
                Life::Dead => break,
                Life::Frozen => gate.changed(Life::Frozen).await,
                Life::Open => {
                    let mut changed = pin!(gate.changed(Life::Open));
                    std::future::poll_fn(|cx| {
                        if changed.as_mut().poll(cx).is_ready() {
                            return Poll::Ready(());
                        }
                        let _: Poll<()> = over.as_mut().poll(cx);
                        changed.as_mut().poll(cx)
                    })
                    .await;
                }
            }
        }
    }
}
