//! Which package may know which: the arrows of ARCHITECTURE.md.

use std::path::Path;

use anyhow::Context as _;

/// Package folder, and the packages of ours that it may depend on outside its tests.
const ALLOWED: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("log", &["relay-protocol"]),
    ("runtime", &["relay-protocol"]),
    ("relay-node", &["relay-protocol", "relay-log", "relay-runtime"]),
    ("coordinator", &["relay-protocol", "relay-log", "relay-runtime"]),
    ("client-cli", &["relay-protocol"]),
    ("standalone", &["relay-protocol", "relay-log", "relay-runtime", "relay-node", "coordinator"]),
    (
        "load-tests",
        &["relay-protocol", "relay-log", "relay-runtime", "relay-node", "coordinator", "client-cli", "standalone"],
    ),
    ("xtask", &[]),
];

const OURS: &[&str] = &[
    "relay-protocol",
    "relay-log",
    "relay-runtime",
    "relay-node",
    "coordinator",
    "client-cli",
    "standalone",
    "load-tests",
];

/// Packages that the protocol must not use: it has no runtime, no clock, no I/O.
const NOT_IN_PROTOCOL: &[&str] = &["tokio", "actix", "actix-web", "rdkafka", "reqwest", "tracing"];

/// Folders of the workspace's packages.
pub(crate) fn members(_root: &Path) -> anyhow::Result<Vec<String>> {
    Ok(ALLOWED.iter().map(|(folder, _)| (*folder).to_owned()).collect())
}

/// Every arrow that should not be there.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    for (folder, allowed) in ALLOWED {
        let file = root.join(folder).join("Cargo.toml");
        let manifest = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for dependency in dependencies(&manifest) {
            if OURS.contains(&dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                findings.push(format!("{folder}/Cargo.toml: must not depend on {dependency}"));
            }
            if *folder == "protocol" && NOT_IN_PROTOCOL.contains(&dependency.as_str()) {
                findings.push(format!("protocol/Cargo.toml: must not depend on {dependency}"));
            }
        }
    }
    Ok(findings)
}

/// Names in the section `[dependencies]`.
fn dependencies(manifest: &str) -> Vec<String> {
    let lines = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    lines
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(str::to_owned)
        .collect()
}
