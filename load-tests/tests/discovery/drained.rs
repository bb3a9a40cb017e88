//! Backends that an operator drains: nothing new, running work ends, and a restart remembers it.

use std::time::Duration;

use crate::name_server::NameServer;
use crate::world::{World, is_healthy, next, one, simulators, started};

#[actix_rt::test]
async fn a_drained_backend_ends_its_work_and_gets_nothing_until_it_is_resumed() {
    let (_, backends) = simulators(&["127.0.0.1", "127.0.0.2"], Duration::from_secs(2));
    let (first, second) = (backends[0].url.clone(), backends[1].url.clone());
    let names = NameServer::start(&[]).await;
    let world = World::start(vec![first.clone(), second.clone()], "", &names, &[]).await;
    world.backends("both", |list| is_healthy(list, &first) && is_healthy(list, &second)).await;
    let mut running = world.submit(1).await;
    let victim = started(&mut running).await;
    let other = if victim == first { &second } else { &first };

    let (status, told) = world.order("drain", &victim).await;
    assert_eq!((status, &told["backend"]["state"]), (200, &"draining".into()), "{told:#}");
    assert_eq!(world.order("drain", &victim).await.0, 200, "it may be asked for twice");
    for number in 2..4 {
        let mut job = world.submit(number).await;
        assert_eq!(&started(&mut job).await, other, "nothing new");
        assert_eq!(next(&mut job).await.0, "completed");
    }
    assert_eq!(next(&mut running).await.0, "completed");
    let list = world.backends("drained", |list| one(list, &victim)["state"] == "drained").await;
    assert_eq!(one(&list, &victim)["reason"], "drained by anonymous");
    let (status, told) = world.order("drain", "http://nobody:1").await;
    assert_eq!((status, &told["error"]["code"]), (404, &"unknown_backend".into()));
    assert!(told["error"]["message"].as_str().unwrap().contains(other.as_str()), "{told}");

    let world = world.restarted().await;
    let both_known = |list: &[serde_json::Value]| is_healthy(list, other) && one(list, &victim)["healthy"] == true;
    let list = world.backends("both again", both_known).await;
    assert_eq!(one(&list, &victim)["state"], "drained", "the restart remembers");
    assert_eq!(&started(&mut world.submit(9).await).await, other);
    let (status, told) = world.order("resume", &victim).await;
    assert_eq!((status, &told["backend"]["state"]), (200, &"serving".into()));
    // The other one is busy for two seconds.
    assert_eq!(started(&mut world.submit(10).await).await, victim);
    world.stop().await;
}
