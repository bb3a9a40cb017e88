//! `kill -9` in the middle of writing: what was acknowledged is there, and a commit is there as a whole or not at all.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use relay_log::local::{LocalLog, LocalLogSettings};
use relay_log::port::{Commit, Log, Start};

use crate::Folder;
use crate::support::{assigned, at, join_spec, offset, read_to_end, record, text, topic};

const FOLDER: &str = "RELAY_TEST_CRASH_FOLDER";
const ROUNDS: usize = 8;

/// The child: writes until it is killed, and says what was acknowledged. Without its variable it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_killed() -> anyhow::Result<()> {
    let Some(folder) = std::env::var_os(FOLDER) else { return Ok(()) };
    let log = LocalLog::open(folder.as_ref(), &LocalLogSettings::default())?;
    let spec = relay_log::port::TopicSpec {
        name: "crash".into(),
        partitions: 1,
        retention: relay_log::port::Retention::Forever,
    };
    log.create_topics(std::slice::from_ref(&spec)).await?;
    let member = log.join(join_spec("crash", &[&spec.name], "writer")).await?;
    let owned = assigned(&*member).await?.remove(0);
    let begin = owned.committed.as_ref().map_or(0, |committed| committed.next);
    for n in begin.. {
        let pair = vec![record(&spec.name, 0, &format!("{n}a")), record(&spec.name, 0, &format!("{n}b"))];
        member.commit(Commit { records: pair, offsets: vec![offset(&owned, n + 1, &n.to_string())] }).await?;
        println!("acknowledged {n}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlasts_a_kill() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for round in 0..ROUNDS {
        let acknowledged = write_and_kill(folder.path(), 20 + round * 7)?;
        let log = LocalLog::open(folder.path(), &LocalLogSettings::default())?;
        let name = "crash".into();
        let mut reader = log.read(vec![(at(&name, 0), Start::Earliest)]).await?;
        let texts: Vec<String> = read_to_end(&mut *reader).await?.0.iter().map(text).collect();
        let committed = log.committed("crash", &at(&name, 0)).await?.expect("something was committed");
        assert!(committed.next > acknowledged, "{} is less than what was acknowledged: {acknowledged}", committed.next);
        let whole: Vec<String> = (0..committed.next).flat_map(|n| [format!("{n}a"), format!("{n}b")]).collect();
        assert_eq!(texts, whole, "round {round}: records and offsets come together");
    }
    Ok(())
}

/// Lets a child write, kills it after some acknowledgements, and returns the last number that it saw acknowledged.
fn write_and_kill(folder: &std::path::Path, enough: usize) -> anyhow::Result<u64> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "crashes::child_that_writes_until_killed", "--nocapture", "--test-threads", "1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take().expect("it is piped");
    let mut last = None;
    for line in BufReader::new(output).lines() {
        let Some(number) = line?.split("acknowledged ").nth(1).and_then(|text| text.trim().parse().ok()) else {
            continue;
        };
        last = Some(number);
        if number as usize % 100 >= enough {
            break;
        }
    }
    child.kill()?;
    child.wait()?;
    last.ok_or_else(|| anyhow::anyhow!("the child acknowledged nothing"))
}

#[tokio::test]
async fn a_topic_of_an_earlier_life_is_there() -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let log = folder.open().await?;
    let name = topic(&*log, "life", 3).await?;
    drop(log);
    let log = folder.open().await?;
    assert_eq!(log.watermarks(&at(&name, 2)).await?.high, 0);
    Ok(())
}
