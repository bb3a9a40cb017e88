//! Signals on a real process, and drains in virtual time.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use relay_runtime::shutdown::{Drain, StageOutcome, on_signals};

use crate::PATIENCE;

const CHILD: &str = "RUNTIME_TEST_CHILD";

/// Runs this test binary once more, only the test `name`, as the process that gets signals.
fn child(name: &str, mode: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, mode)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    wait_line(&mut lines, "child ready");
    (child, lines)
}

fn wait_line(lines: &mut BufReader<std::process::ChildStdout>, wanted: &str) {
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "the child ended before it said {wanted:?}");
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap();
    assert!(status.success());
}

fn wait_end(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the child did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The child's side: `drains` ends when the token says so, `hangs` blocks its runtime and never looks.
fn be_child(mode: &str) -> ! {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let token = on_signals().unwrap();
        println!("child ready");
        if mode == "hangs" {
            // Blocks the only thread of the runtime; the signal thread reports the first signal through the token.
            while !token.is_cancelled() {
                std::thread::yield_now();
            }
            println!("first signal seen");
            std::thread::sleep(2 * PATIENCE);
            std::process::exit(99);
        }
        token.cancelled().await;
        println!("drained");
    });
    std::process::exit(0)
}

#[test]
fn the_first_signal_lets_the_process_drain() {
    if let Ok(mode) = std::env::var(CHILD) {
        be_child(&mode);
    }
    for name in ["TERM", "INT"] {
        let (mut child, mut lines) = child("shutdown::the_first_signal_lets_the_process_drain", "drains");
        signal(&child, name);
        assert_eq!(wait_end(&mut child).code(), Some(0));
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("drained"), "{rest}");
    }
}

#[test]
fn the_second_signal_ends_a_process_that_hangs() {
    if let Ok(mode) = std::env::var(CHILD) {
        be_child(&mode);
    }
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let (mut child, mut lines) = child("shutdown::the_second_signal_ends_a_process_that_hangs", "hangs");
        signal(&child, "TERM");
        wait_line(&mut lines, "first signal seen");
        signal(&child, name);
        assert_eq!(wait_end(&mut child).code(), Some(code));
    }
}

#[tokio::test(start_paused = true)]
async fn stages_run_in_order_and_each_within_its_limit() {
    let order = Mutex::new(Vec::new());
    let did = |name: &'static str| order.lock().unwrap().push(name);
    let s = Duration::from_secs;
    let ends = Drain::new()
        .stage("sessions", s(5), async {
            tokio::time::sleep(s(2)).await;
            did("sessions");
        })
        .stage("stuck", s(3), async {
            did("stuck");
            std::future::pending::<()>().await;
        })
        .stage("broken", s(3), async { panic!("on purpose") })
        .stage("commit", s(5), async { did("commit") })
        .run()
        .await;
    assert_eq!(*order.lock().unwrap(), ["sessions", "stuck", "commit"]);
    let outcomes: Vec<_> = ends.into_iter().map(|end| (end.name, end.took, end.outcome)).collect();
    assert_eq!(
        outcomes,
        [
            ("sessions", s(2), StageOutcome::Done),
            ("stuck", s(3), StageOutcome::TimedOut),
            ("broken", s(0), StageOutcome::Panicked("it panicked: on purpose".to_owned())),
            ("commit", s(0), StageOutcome::Done),
        ]
    );
}
