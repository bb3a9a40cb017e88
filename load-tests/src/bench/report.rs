//! Tables for people, the same figures as JSON for machines.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;

/// One line of a table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: String,
    /// Named figures.
    pub figures: Vec<(String, f64)>,
}

/// One bench's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name of the bench.
    pub bench: &'static str,
    /// What it ran on.
    pub machine: String,
    /// What it ran with.
    pub settings: Value,
    /// The figures.
    pub rows: Vec<Row>,
}

impl Report {
    /// A report without figures.
    pub fn new(bench: &'static str, settings: Value) -> Self {
        Self { bench, machine: machine(), settings, rows: Vec::new() }
    }

    /// The table, its columns as wide as they need to be.
    pub fn table(&self) -> String {
        let mut text = format!("{} on {}\n", self.bench, self.machine);
        let first = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        let mut head: &[(String, f64)] = &[];
        for row in &self.rows {
            let names = |figures: &[(String, f64)]| figures.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            if names(head) != names(&row.figures) {
                head = &row.figures;
                let columns: String = names(head).iter().map(|name| format!(" {name:>12}")).collect();
                _ = writeln!(text, "{:<first$}{columns}", "");
            }
            let columns: String = row.figures.iter().map(|(_, figure)| format!(" {:>12}", rounded(*figure))).collect();
            _ = writeln!(text, "{:<first$}{columns}", row.what);
        }
        text
    }

    /// Prints the table; writes the JSON if a file is named.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn publish(&self, json: Option<&Path>) -> anyhow::Result<()> {
        print!("{}", self.table());
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&self.as_json())?;
            std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    fn as_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let mut fields: serde_json::Map<String, Value> =
                row.figures.iter().map(|(name, figure)| (name.clone(), (*figure).into())).collect();
            fields.insert("what".to_owned(), row.what.clone().into());
            Value::Object(fields)
        });
        serde_json::json!({
            "bench": self.bench,
            "machine": self.machine,
            "settings": self.settings,
            "rows": rows.collect::<Vec<_>>(),
        })
    }
}

/// Three significant digits, whole numbers from a hundred on.
fn rounded(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

/// Processor, cores, memory and system, as far as /proc tells.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory: u64 = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let build = if cfg!(debug_assertions) { ", DEBUG BUILD" } else { "" };
    format!(
        "{cores} cores of {}, {} GiB, Linux {}{build}",
        model.trim_start_matches(['\t', ' ', ':']),
        memory / (1 << 20),
        kernel.trim()
    )
}
