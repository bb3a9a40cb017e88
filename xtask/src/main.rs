//! Checks of the source tree that no compiler makes: `cargo run -p xtask -- tidy`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};

mod arrows;
mod sources;

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy(),
        _ => Err(anyhow!("usage: cargo run -p xtask -- tidy")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tidy() -> anyhow::Result<()> {
    // As cargo says now, not where this was built: target folders are shared between checkouts.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").context("run it with cargo run -p xtask")?;
    let root = Path::new(&package).parent().context("the workspace's folder")?;
    let mut findings = arrows::check(root)?;
    for member in arrows::members(root)? {
        for file in rust_files(&root.join(&member).join("src"))? {
            findings.extend(sources::check(root, &file)?);
        }
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy: arrows, lengths and headers are in order");
    Ok(())
}

fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
