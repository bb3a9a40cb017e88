//! Restarts: of tasks that end or panic, and of a real actor whose handler panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor, Context, Handler, Message};
use relay_runtime::supervise::{LifeLine, RestartPolicy, life_line, supervise};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::PATIENCE;

fn policy(min: u64, max: u64) -> RestartPolicy {
    let ms = Duration::from_millis;
    RestartPolicy { delay_min: ms(min), delay_max: ms(max), stable_after: ms(60_000) }
}

#[tokio::test(start_paused = true)]
async fn the_delay_grows_to_its_limit_and_starts_over_after_a_stable_life() {
    let shutdown = CancellationToken::new();
    let (births_tx, mut births) = mpsc::unbounded_channel();
    let began = Instant::now();
    let supervisor = async {
        supervise("test_delays", policy(100, 400), &shutdown, |life| {
            births_tx.send((life, began.elapsed().as_millis())).unwrap();
            async move {
                match life {
                    2 => panic!("on purpose"),
                    5 => tokio::time::sleep(Duration::from_secs(61)).await, // a stable life
                    _ => {}
                }
            }
        })
        .await;
    };
    let watch = async {
        let mut seen = Vec::new();
        while seen.len() < 7 {
            seen.push(births.recv().await.unwrap());
        }
        shutdown.cancel();
        seen
    };
    let ((), seen) = tokio::join!(supervisor, watch);
    // Ends at once: after 100, 200, 400, 400 ms; life 5 lasts 61 s, then 100 ms and 200 ms again.
    let expected = [(1, 0), (2, 100), (3, 300), (4, 700), (5, 1_100), (6, 62_200), (7, 62_400)];
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn a_panicking_factory_is_a_death_too() {
    let shutdown = CancellationToken::new();
    let lives = AtomicU64::new(0);
    let stop = shutdown.clone();
    supervise("test_factory", policy(1, 1), &shutdown, |life| {
        lives.store(life, Ordering::SeqCst);
        if life == 3 {
            stop.cancel();
        }
        assert!(life >= 3, "no luck yet");
        std::future::pending()
    })
    .await;
    assert_eq!(lives.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_a_life_and_a_wait() {
    let shutdown = CancellationToken::new();
    let run = supervise("test_end", policy(3_600_000, 3_600_000), &shutdown, |_| async {});
    let began = Instant::now();
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        shutdown.cancel();
    };
    tokio::join!(run, cancel);
    assert_eq!(began.elapsed(), Duration::from_secs(1), "it did not wait the hour");
    let mut started = false;
    supervise("test_end", policy(1, 1), &shutdown, |_| {
        started = true;
        std::future::pending()
    })
    .await;
    assert!(!started, "nothing is started after the end");
}

struct Fragile {
    _line: LifeLine,
}

impl Actor for Fragile {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Ask {
    panic: bool,
}

impl Handler<Ask> for Fragile {
    type Result = u32;

    fn handle(&mut self, ask: Ask, _: &mut Self::Context) -> u32 {
        assert!(!ask.panic, "on purpose");
        7
    }
}

#[actix_web::test]
async fn an_actor_whose_handler_panics_comes_back() {
    let shutdown = CancellationToken::new();
    let (addresses_tx, mut addresses) = mpsc::unbounded_channel();
    let lives = Arc::new(AtomicU64::new(0));
    let counted = lives.clone();
    let supervisor = actix_web::rt::spawn({
        let shutdown = shutdown.clone();
        async move {
            supervise("test_actor", policy(1, 10), &shutdown, |_| {
                let (line, death) = life_line();
                counted.fetch_add(1, Ordering::SeqCst);
                addresses_tx.send(Fragile { _line: line }.start()).unwrap();
                death
            })
            .await;
        }
    });
    let first = addresses.recv().await.unwrap();
    assert_eq!(first.send(Ask { panic: false }).await.unwrap(), 7);
    assert!(first.send(Ask { panic: true }).await.is_err(), "the handler panicked");
    let second = timeout(PATIENCE, addresses.recv()).await.expect("a fresh actor").unwrap();
    assert_eq!(second.send(Ask { panic: false }).await.unwrap(), 7);
    shutdown.cancel();
    timeout(PATIENCE, supervisor).await.unwrap().unwrap();
    assert_eq!(lives.load(Ordering::SeqCst), 2);
}
