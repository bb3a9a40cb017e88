//! Metrics of the process in Prometheus' text format. Code records through the `metrics` crate's macros; this module
//! owns the one recorder behind them and adds what the kernel knows about the process.

use std::fmt::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of every histogram whose name ends in `_seconds`, in seconds: 0.5 ms to 10 min.
pub const SECONDS_BUCKETS: [f64; 20] = [
    0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0,
    600.0,
];

/// Upper bounds of every histogram whose name ends in `_bytes`, in bytes: 256 B to 1 GiB, in steps of four.
pub const BYTES_BUCKETS: [f64; 12] = [
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
];

/// Time between two clean-ups when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The process's metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// Why the metrics cannot be recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// Something else installed a recorder before.
    #[error("another metrics recorder is already installed in this process")]
    OtherRecorder,
    /// The exporter refused its settings: a fault of the program.
    #[error("the metrics recorder cannot be built: {0}")]
    Build(String),
}

/// Installs the process's recorder at the first call; later calls return the same.
///
/// Call it before anything records: a counter or gauge handle made earlier stays silent. Run
/// [`Metrics::upkeep`] beside it.
///
/// # Errors
/// [`MetricsError`].
pub fn install() -> Result<Metrics, MetricsError> {
    static INSTALLED: OnceLock<Metrics> = OnceLock::new();
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(metrics) = INSTALLED.get() {
        return Ok(metrics.clone());
    }
    let build = |error: metrics_exporter_prometheus::BuildError| MetricsError::Build(error.to_string());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .map_err(build)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES_BUCKETS)
        .map_err(build)?
        .build_recorder();
    let metrics = Metrics { handle: recorder.handle() };
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::OtherRecorder)?;
    Ok(INSTALLED.get_or_init(|| metrics).clone())
}

impl Metrics {
    /// Everything recorded so far plus the process's own figures, as [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        ProcessFigures::read().write(&mut text);
        text
    }

    /// Folds raw samples into their buckets every few seconds until `shutdown`; without it, a process that nobody
    /// scrapes keeps every sample.
    pub async fn upkeep(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => self.handle.run_upkeep(),
            }
        }
    }
}

/// What the kernel tells about this process; what cannot be read is left out.
#[derive(Debug, Default)]
struct ProcessFigures {
    resident_bytes: Option<u64>,
    open_fds: Option<u64>,
    cpu_seconds: Option<f64>,
}

impl ProcessFigures {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The open directory is itself one of the descriptors it lists.
        let open_fds = std::fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1));
        Self { resident_bytes: resident_bytes(&status), open_fds, cpu_seconds: cpu_seconds(&stat) }
    }

    fn write(&self, text: &mut String) {
        let mut line = |name: &str, kind: &str, help: &str, value: Option<f64>| {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
            }
        };
        let resident = self.resident_bytes.map(|bytes| bytes as f64);
        let fds = self.open_fds.map(|fds| fds as f64);
        line("process_resident_memory_bytes", "gauge", "Resident memory of the process in bytes.", resident);
        line("process_open_fds", "gauge", "Open file descriptors of the process.", fds);
        line("process_cpu_seconds_total", "counter", "User and system CPU time used, in seconds.", self.cpu_seconds);
    }
}

/// `VmRSS` of `/proc/self/status`, which is in KiB whatever the page size.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// User plus system time of `/proc/self/stat`. The kernel shows it in ticks of 1/100 s on every architecture.
fn cpu_seconds(stat: &str) -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    // The command name, in brackets, may hold blanks and brackets itself: count from its last one.
    let mut after_name = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let user: u64 = after_name.nth(11)?.parse().ok()?;
    let system: u64 = after_name.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::{cpu_seconds, resident_bytes};

    #[test]
    fn a_command_name_with_blanks_and_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 100 1000 200 0";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("42 (cut off"), None);
        assert_eq!(cpu_seconds("42 (short) S 1 2"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident_bytes("VmPeak:\t  9 kB\nVmRSS:\t    2048 kB\n"), Some(2_097_152));
        assert_eq!(resident_bytes("VmRSS:\tmany kB\n"), None);
        assert_eq!(resident_bytes(""), None);
    }
}
