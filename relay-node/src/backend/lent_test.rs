//! What holds a slot ends with the lease, whatever comes first after a stand-still.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, advance, sleep};

use super::super::BackendError;
use super::Lent;

const LEASE: Duration = Duration::from_secs(5);

fn lent() -> std::sync::Arc<Lent> {
    let lent = Lent::own();
    lent.until(Instant::now() + LEASE);
    lent
}

#[tokio::test(start_paused = true)]
async fn work_ends_with_the_lease_and_not_before() {
    let lent = lent();
    let hold = lent.hold().unwrap();
    assert_eq!(hold.during(sleep(LEASE / 2)).await, Ok(()));
    let (work, end) = tokio::join!(hold.during(std::future::pending::<()>()), async {
        sleep(LEASE).await;
        lent.end();
    });
    assert_eq!((work, end), (Err(BackendError::LeaseOver), ()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_lies_there_after_a_stand_still_is_not_looked_at() {
    let lent = lent();
    let hold = lent.hold().unwrap();
    let looked = Cell::new(0);
    let mut work = Box::pin(hold.during(async {
        tokio::task::yield_now().await;
        looked.set(looked.get() + 1);
    }));
    assert!(futures_util::poll!(&mut work).is_pending());
    // Nobody told it: it is the first to run.
    advance(LEASE).await;
    assert_eq!(work.await, Err(BackendError::LeaseOver));
    assert_eq!(looked.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_later_lease_does_not_bring_an_earlier_slot_back() {
    let lent = lent();
    let (earlier, waiting) = (lent.hold().unwrap(), lent.hold().unwrap());
    let mut work = Box::pin(waiting.during(std::future::pending::<()>()));
    assert!(futures_util::poll!(&mut work).is_pending());
    lent.end();
    lent.until(Instant::now() + LEASE * 2);
    assert_eq!(earlier.during(async {}).await, Err(BackendError::LeaseOver));
    assert_eq!(work.await, Err(BackendError::LeaseOver));
    assert_eq!(lent.hold().unwrap().during(async {}).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn slots_of_a_nodes_own_have_no_end() {
    assert!(Lent::own().hold().is_none());
    assert!(!Lent::own().is_past());
}
