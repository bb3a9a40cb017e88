//! Addresses come and go while work runs; names fail and come back.

use std::time::Duration;

use crate::name_server::{NameServer, Says};
use crate::world::{World, is_healthy, next, one, simulators, started};

#[actix_rt::test]
async fn an_address_that_goes_ends_its_work_and_gets_nothing_new() {
    let (port, backends) = simulators(&["127.0.0.1", "127.0.0.2"], Duration::from_secs(3));
    let (first, second) = (backends[0].url.as_str(), backends[1].url.as_str());
    let names = NameServer::start(&["127.0.0.1"]).await;
    let world = World::start(Vec::new(), &format!("http://ai.test.:{port}"), &names, &[]).await;
    let list = world.backends("the first address", |list| is_healthy(list, first)).await;
    assert_eq!((list.len(), &list[0]["via"]), (1, &format!("http://ai.test:{port}").into()));

    let mut running = world.submit(1).await;
    assert_eq!(started(&mut running).await, first);
    names.leads_to(&["127.0.0.2"]);
    let list = world.backends("the second address", |list| is_healthy(list, second)).await;
    let leaving = one(&list, first);
    assert_eq!(leaving["state"], "draining", "its work runs: {leaving}");
    assert_eq!(leaving["reason"], format!("http://ai.test:{port} leads there no more"));

    let mut other = world.submit(2).await;
    assert_eq!(started(&mut other).await, second, "nothing new goes to the one that leaves");
    assert_eq!(next(&mut running).await.0, "completed", "what ran there ended there");
    world.backends("the end of the first", |list| list.len() == 1).await;
    assert_eq!(next(&mut other).await.0, "completed");
    assert_eq!(backends[0].counters().models["whisper-1"].requests, 1);

    names.leads_to(&["127.0.0.1", "127.0.0.2"]);
    world.backends("its return", |list| is_healthy(list, first) && is_healthy(list, second)).await;
    world.stop().await;
}

#[actix_rt::test]
async fn a_name_that_fails_is_kept_for_a_time_and_says_so() {
    let (port, backends) = simulators(&["127.0.0.1"], Duration::from_millis(1));
    let url = backends[0].url.as_str();
    let names = NameServer::start(&["127.0.0.1"]).await;
    let env = [("RELAY__BACKENDS__DNS_KEEP_MS", "3000")];
    let world = World::start(Vec::new(), &format!("http://ai.test.:{port}"), &names, &env).await;
    world.backends("the address", |list| is_healthy(list, url)).await;
    for (says, words) in [(Says::Nothing, "it has no address"), (Says::Fails, "failed ("), (Says::Silence, "failed (")]
    {
        names.says(says);
        let told = |list: &[serde_json::Value]| {
            one(list, url)["reason"].as_str().is_some_and(|reason| reason.contains(words) && reason.contains("is kept"))
        };
        let list = world.backends(words, told).await;
        assert!(is_healthy(&list, url), "it is used: {list:#?}");
        assert_eq!(next(&mut world.submit(words.len() as u32).await).await.0, "started");
        names.leads_to(&["127.0.0.1"]);
        world.backends("an answer", |list| one(list, url)["reason"].is_null()).await;
    }
    names.says(Says::Fails);
    world.backends("the end of its time", <[_]>::is_empty).await;
    let told = &world.get("/v1/backends").await["names"][0];
    assert!(told["problem"].as_str().unwrap().starts_with("looking up its A records failed"), "{told}");
    assert_eq!(told["backends"], 0);
    names.leads_to(&["127.0.0.1"]);
    world.backends("its return", |list| is_healthy(list, url)).await;
    world.stop().await;
}

#[actix_rt::test]
async fn an_address_of_two_entries_counts_once_and_the_settings_win() {
    let (port, backends) = simulators(&["127.0.0.1", "127.0.0.2"], Duration::from_millis(1));
    let names = NameServer::start(&["127.0.0.1", "127.0.0.2", "0.0.0.0"]).await;
    let dns = format!("http://a.test.:{port};slots=3,http://b.test.:{port};slots=4");
    let world = World::start(vec![format!("{};slots=2", backends[0].url)], &dns, &names, &[]).await;
    let both = |list: &[serde_json::Value]| backends.iter().all(|backend| is_healthy(list, &backend.url));
    let list = world.backends("both", both).await;
    assert_eq!(list.len(), 2, "{list:#?}");
    assert_eq!((&one(&list, &backends[0].url)["slots"], &list[0]["via"]), (&2.into(), &serde_json::Value::Null));
    assert_eq!(one(&list, &backends[1].url)["slots"], 3, "the name that is listed first");
    let told = world.get("/v1/backends").await["names"].clone();
    assert_eq!((&told[0]["backends"], &told[1]["backends"]), (&1.into(), &0.into()), "{told:#}");
    assert!(told[1]["problem"].as_str().unwrap().contains("counts as"), "{told:#}");
    world.stop().await;
}
