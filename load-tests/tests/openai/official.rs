//! The official clients of Python and Node, only their base URL changed: the programs of `examples/openai`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::{Cluster, fast, simulator};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the program prints, by call.
async fn run(language: &str, cluster: &Cluster) -> anyhow::Result<serde_json::Map<String, Value>> {
    let (root, clients) = (repository().join("examples/openai"), repository().join(".cache/examples/openai"));
    let mut command = match language {
        "python" => {
            let mut python = tokio::process::Command::new(clients.join("python/bin/python"));
            python.arg(root.join("python/call.py"));
            python
        }
        _ => {
            let mut node = tokio::process::Command::new("node");
            node.env("NODE_PATH", clients.join("node/node_modules")).arg(root.join("node/call.mjs"));
            node
        }
    };
    command.arg(cluster.url("/v1")).arg(repository().join("fixtures/audio/speech.wav")).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("{language}: run scripts/examples.sh first"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{language}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    let lines = said.lines().map(serde_json::from_str::<Value>);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>()?;
    Ok(lines.into_iter().map(|line| (line["call"].as_str().unwrap_or_default().to_owned(), line)).collect())
}

async fn works(language: &str) -> anyhow::Result<()> {
    let backend = simulator(fast())?;
    let cluster = Cluster::start(&[&backend], &[]).await?;
    let said = run(language, &cluster).await?;
    assert!(said["models"]["ids"].as_array().is_some_and(|ids| ids.contains(&json!("lab-chat"))));
    assert_eq!(said["chat"]["text"], "Summary: The dog barked.");
    let pieces = said["chat stream"]["pieces"].as_array().cloned().unwrap_or_default();
    assert!(pieces.len() > 1, "it came in pieces: {pieces:?}");
    assert_eq!(pieces.iter().filter_map(Value::as_str).collect::<String>(), "Summary: The dog barked.");
    assert_eq!(said["embeddings"]["lengths"], json!([64, 64]));
    assert!(said["image"]["bytes"].as_u64().is_some_and(|bytes| bytes > 100));
    assert!(said["transcription"]["text"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(said["transcription stream"]["kinds"], json!(["transcript.text.delta", "transcript.text.done"]));
    assert_eq!(said["transcription stream"]["text"], said["transcription"]["text"]);
    assert_eq!(said["speech"]["bytes"], load_tests::localai_sim::audio::spoken("on monday", false).len());
    assert!(said["speech"]["job"].is_string());
    assert_eq!(
        (&said["unknown model"]["status"], &said["unknown model"]["code"]),
        (&json!(404), &json!("unknown_model"))
    );
    cluster.stop().await;
    backend.stop().await;
    Ok(())
}

#[actix_rt::test]
async fn the_python_client_works() -> anyhow::Result<()> {
    works("python").await
}

#[actix_rt::test]
async fn the_node_client_works() -> anyhow::Result<()> {
    works("node").await
}
