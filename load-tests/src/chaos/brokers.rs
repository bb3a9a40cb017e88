//! Three Kafka brokers, each broker and controller, with three copies of everything.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::signal;
use crate::broker::repository;

/// How many.
pub(super) const COUNT: usize = 3;

/// Time in which a started broker must have all copies again.
const WHOLE_PATIENCE: Duration = Duration::from_secs(120);

/// What differs from the single development broker.
const OVERRIDES: &str = "
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
";

struct Broker {
    port: u16,
    properties: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// All brokers; killed when dropped.
pub(super) struct Brokers {
    classpath: String,
    list: Vec<Broker>,
}

impl Drop for Brokers {
    fn drop(&mut self) {
        for child in self.list.iter_mut().filter_map(|broker| broker.child.as_mut()) {
            drop(signal::kill(child));
        }
    }
}

impl Brokers {
    /// Formats and starts them in `folder`, and waits until each knows the others.
    ///
    /// # Errors
    /// Kafka is not installed and cannot be; a broker that does not start.
    pub(super) async fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut brokers = Self { classpath: classpath()?, list: Vec::new() };
        let ports = free_ports(2 * COUNT)?;
        let (ports, controllers) = ports.split_at(COUNT);
        let voters: Vec<_> =
            controllers.iter().enumerate().map(|(at, port)| format!("{}@127.0.0.1:{port}", at + 1)).collect();
        // The zero keeps the text from beginning with a dash.
        let mut id = *uuid::Uuid::new_v4().as_bytes();
        id[0] = 0;
        for (at, (port, controller)) in ports.iter().zip(controllers).enumerate() {
            let home = folder.join(format!("broker-{}", at + 1));
            let properties = write_properties(&home, at + 1, *port, *controller, &voters.join(","))?;
            let formatted = brokers
                .java()
                .args(["kafka.tools.StorageTool", "format", "-t", &URL_SAFE_NO_PAD.encode(id), "-c"])
                .arg(&properties)
                .output()
                .context("running Java")?;
            ensure!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
            brokers.list.push(Broker { port: *port, properties, log: home.join("broker.log"), child: None });
        }
        for at in 0..COUNT {
            brokers.launch(at)?;
        }
        brokers.wait_until_whole().await?;
        Ok(brokers)
    }

    /// `host:port` of all.
    pub(super) fn bootstrap(&self) -> String {
        self.list.iter().map(|broker| format!("127.0.0.1:{}", broker.port)).collect::<Vec<_>>().join(",")
    }

    /// Starts one that is not running, with the data that it has.
    pub(super) fn launch(&mut self, at: usize) -> anyhow::Result<()> {
        let broker = &self.list[at];
        let log = File::options().create(true).append(true).open(&broker.log)?;
        let child = self
            .java()
            .args(["-Xmx320m", "-XX:+UseSerialGC", "kafka.Kafka"])
            .arg(&broker.properties)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.list[at].child = Some(child);
        Ok(())
    }

    pub(super) fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        self.list[at].child.take().map_or(Ok(()), |mut child| signal::kill(&mut child))
    }

    pub(super) fn freeze(&self, at: usize) -> anyhow::Result<()> {
        self.list[at].child.as_ref().map_or(Ok(()), signal::freeze)
    }

    pub(super) fn thaw(&self, at: usize) -> anyhow::Result<()> {
        self.list[at].child.as_ref().map_or(Ok(()), signal::thaw)
    }

    /// Waits until all brokers are there and each partition has all its copies in sync.
    ///
    /// # Errors
    /// It takes too long.
    pub(super) async fn wait_until_whole(&self) -> anyhow::Result<()> {
        let (bootstrap, began) = (self.bootstrap(), Instant::now());
        loop {
            let asked = bootstrap.clone();
            let state = tokio::task::spawn_blocking(move || copies_missing(&asked)).await?;
            match state {
                Ok(0) => return Ok(()),
                last if began.elapsed() > WHOLE_PATIENCE => bail!("the brokers are not whole: {last:?}"),
                _ => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
    }

    fn java(&self) -> Command {
        let mut command = Command::new(std::env::var("JAVA_HOME").map_or("java".into(), |home| home + "/bin/java"));
        command.args(["-cp", &self.classpath, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
        command
    }
}

/// Brokers and copies of partitions that are not there.
fn copies_missing(bootstrap: &str) -> anyhow::Result<usize> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", bootstrap).set("log_level", "0").create()?;
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(3))?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let missing: usize = partitions.map(|partition| COUNT.saturating_sub(partition.isr().len())).sum();
    Ok(missing + COUNT.saturating_sub(metadata.brokers().len()))
}

fn classpath() -> anyhow::Result<String> {
    let script = repository().join("deploy/kafka-dev/kafka.sh");
    let installed = Command::new(script).arg("install").output().context("running kafka.sh")?;
    ensure!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let output = String::from_utf8(installed.stdout)?;
    let libs = output.lines().find_map(|line| line.strip_prefix("KAFKA_LIBS="));
    Ok(format!("{}/*", libs.context("kafka.sh does not say where Kafka is")?))
}

fn write_properties(home: &Path, id: usize, port: u16, controller: u16, voters: &str) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(home)?;
    let template = std::fs::read_to_string(repository().join("deploy/kafka-dev/server.properties.in"))?;
    let data = home.join("data");
    // Of a key that is there twice Java takes the last.
    let text = template
        .replace("@DATA@", &data.to_string_lossy())
        .replace("@PORT@", &port.to_string())
        .replace("@CONTROLLER_PORT@", &controller.to_string());
    let text = format!("{text}{OVERRIDES}node.id={id}\ncontroller.quorum.voters={voters}\n");
    let path = home.join("server.properties");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Ports that nobody has, all different.
pub(super) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let open: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    open.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
