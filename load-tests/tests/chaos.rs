//! A short run of the chaos test: every kind of fault once, on real brokers and processes.

use std::process::Command;

use anyhow::ensure;
use serde_json::Value;

#[test]
fn every_accepted_job_ends_once_whatever_is_killed_frozen_or_cut_off() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let report = folder.path().join("report.json");
    let seed = std::env::var("CHAOS_SEED").unwrap_or_else(|_| "1".to_owned());
    let run = Command::new(env!("CARGO_BIN_EXE_load-tests"))
        .args(["chaos", "--seconds", "90", "--seed", &seed, "--json"])
        .arg(&report)
        .output()?;
    print!("{}", String::from_utf8_lossy(&run.stdout));
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    let findings = &report["findings"];
    assert_eq!((&findings["lost"], &findings["doubled"]), (&0.into(), &0.into()));
    assert!(report["accepted"].as_u64() > Some(500), "{report}");
    // Ten times the session's time-out: brokers and other nodes fall at the same time, on a machine that may have no time for any of them.
    // What it is where nothing else fails: `load-tests bench takeover`.
    assert!(report["take_over_p50_ms"].as_u64() < Some(60_000), "{report}");
    Ok(())
}
