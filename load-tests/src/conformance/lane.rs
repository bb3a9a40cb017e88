//! Watches what somebody's producer writes to a lane, and says which rule each record breaks.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use relay_log::kafka::{KafkaLog, KafkaSettings};
use relay_log::port::{Log, LogReader, LogRecord, ReadEvent, Retention, Start, TopicPartition, TopicSpec, TopicState};
use relay_protocol::record::HEADER_EVENT;
use relay_protocol::{EventKind, JobId, topics};
use tokio::time::{Instant, timeout_at};

use super::record::{Judgement, Lane, Rule};
use super::report::{Outcome, Report};

/// Offending records that a check names at most.
const NAMED_MAX: usize = 10;

/// How to watch a lane.
#[derive(Debug, Args)]
pub struct LaneArguments {
    /// The lane; nothing but the producer under test should write to it meanwhile.
    #[arg(long, default_value = topics::DEFAULT_LANE, requires = "brokers")]
    lane: String,
    /// Records to judge; the run ends once they have come.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000), requires = "brokers")]
    records: u32,
    /// Also waits for the end of each job, which takes a node that serves the lane.
    #[arg(long, requires = "brokers")]
    ends: bool,
    /// Longest wait for all of it, in seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400), requires = "brokers")]
    timeout_s: u64,
    /// A librdkafka property for the brokers, such as security.protocol=SASL_SSL; may be given several times.
    #[arg(long = "property", value_name = "KEY=VALUE", value_parser = property, requires = "brokers")]
    properties: Vec<(String, String)>,
}

/// Judges the next records of the lane. Prints `watching TOPIC` once nothing that is written from then on is missed.
///
/// # Errors
/// The brokers do not answer, or there is no such lane. Broken rules are not errors: they are in `report`.
pub async fn watch(brokers: &str, arguments: &LaneArguments, report: &mut Report) -> anyhow::Result<()> {
    let settings = KafkaSettings {
        client_id: "conformance".to_owned(),
        extra: arguments.properties.iter().cloned().collect(),
        ..KafkaSettings::single_broker(brokers)
    };
    let log = KafkaLog::connect(settings)?;
    let jobs = topics::jobs(&arguments.lane);
    let partitions = partitions(&log, &jobs).await?;
    let mut watched: Vec<_> = (0..partitions).map(|number| TopicPartition::new(&*jobs, number)).collect();
    if arguments.ends {
        let count = self::partitions(&log, topics::EVENTS).await?;
        watched.extend((0..count).map(|number| TopicPartition::new(topics::EVENTS, number)));
    }
    let mut starts = Vec::with_capacity(watched.len());
    for at in watched {
        let end = log.watermarks(&at).await.context("asking for the end of the lane")?.stable;
        starts.push((at, Start::Offset(end)));
    }
    let reader = log.read(starts).await.context("reading the lane")?;
    println!("watching {jobs}");
    let mut watch = Watch { lane: Lane::new(partitions), judged: Vec::new(), ends: HashMap::new() };
    watch.read(reader, arguments).await?;
    watch.report(arguments, report);
    Ok(())
}

async fn partitions(log: &KafkaLog, topic: &str) -> anyhow::Result<u32> {
    // Asked for with a number that it may not have, a topic tells the one that it has.
    let spec = TopicSpec { name: topic.into(), partitions: 1, retention: Retention::Forever };
    let states = log.check_topics(&[spec]).await.context("asking the brokers for the lane's topics")?;
    match states.first() {
        Some(TopicState::Ready | TopicState::Retention { .. }) => Ok(1),
        Some(TopicState::Partitions { found }) => Ok(*found),
        Some(TopicState::Missing) | None => anyhow::bail!("there is no topic {topic}"),
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

struct Watch {
    lane: Lane,
    judged: Vec<(String, Judgement)>,
    /// Terminal events of each job.
    ends: HashMap<JobId, u32>,
}

impl Watch {
    async fn read(&mut self, mut reader: Box<dyn LogReader>, arguments: &LaneArguments) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(arguments.timeout_s);
        while !self.is_done(arguments) {
            match timeout_at(until, reader.next()).await {
                Err(_) => return Ok(()),
                Ok(Ok(ReadEvent::Record(record))) => self.take(&record, arguments.records),
                Ok(Ok(ReadEvent::End { .. })) => {}
                Ok(Err(error)) => return Err(error).context("reading the lane"),
            }
        }
        Ok(())
    }

    fn take(&mut self, record: &LogRecord, records: u32) {
        if &*record.at.topic == topics::EVENTS {
            let kind =
                record.header(HEADER_EVENT).and_then(|name| EventKind::from_name(std::str::from_utf8(name).ok()?));
            let id = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
            if let (Some(id), true) = (id, kind.is_some_and(EventKind::is_terminal)) {
                *self.ends.entry(id).or_default() += 1;
            }
        } else if self.judged.len() < records as usize
            && let Some(judgement) = self.lane.judge(record)
        {
            self.judged.push((format!("{}/{}", record.at, record.offset), judgement));
        }
    }

    fn is_done(&self, arguments: &LaneArguments) -> bool {
        let mut jobs = self.judged.iter().filter_map(|(_, judgement)| judgement.job_id);
        self.judged.len() >= arguments.records as usize
            && (!arguments.ends || jobs.all(|job| self.ends.contains_key(&job)))
    }

    fn report(&self, arguments: &LaneArguments, report: &mut Report) {
        let came = match self.judged.len() {
            found if found >= arguments.records as usize => Outcome::Passed,
            found => Outcome::Failed(format!("{found} within {} s", arguments.timeout_s)),
        };
        report.add("record.seen", &format!("{} records come", arguments.records), came);
        let mut breaches: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (place, judgement) in &self.judged {
            for breach in &judgement.breaches {
                breaches.entry(breach.rule.words().0).or_default().push(format!("{place}: {}", breach.got));
            }
        }
        for (name, expected) in Rule::ALL.map(Rule::words) {
            report.add(name, expected, self.outcome(breaches.get(name)));
        }
        let expected = "each job has exactly one terminal event in media.events";
        if !arguments.ends {
            return report.add("job.ends", expected, Outcome::Skipped("--ends was not given".to_owned()));
        }
        let wrong: Vec<_> = self
            .judged
            .iter()
            .filter_map(|(place, judgement)| Some((place, judgement.job_id?)))
            .map(|(place, job)| (place, job, self.ends.get(&job).copied().unwrap_or(0)))
            .filter(|(_, _, ends)| *ends != 1)
            .map(|(place, job, ends)| format!("{place}: job {job} has {ends}"))
            .collect();
        report.add("job.ends", expected, self.outcome(Some(&wrong)));
    }

    fn outcome(&self, breaches: Option<&Vec<String>>) -> Outcome {
        match breaches {
            _ if self.judged.is_empty() => Outcome::Skipped("no record came".to_owned()),
            Some(breaches) if !breaches.is_empty() => {
                let mut lines: Vec<_> = breaches.iter().take(NAMED_MAX).cloned().collect();
                if breaches.len() > NAMED_MAX {
                    lines.push(format!("and {} more", breaches.len() - NAMED_MAX));
                }
                Outcome::Failed(lines.join("\n"))
            }
            _ => Outcome::Passed,
        }
    }
}
