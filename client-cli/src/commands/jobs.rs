//! `jobs`: lists, shows, cancels and retries the jobs that the job view knows.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use relay_protocol::JobId;
use relay_protocol::time::{format_rfc3339, parse_rfc3339};
use serde_json::{Value, json};

use super::cluster::table;
use super::http;
use crate::cli::duration;
use crate::clock::now_ms;
use crate::output::{Failure, print_line};
use crate::settings::ClientSettings;

/// Exit code when some jobs were refused.
const REFUSED: u8 = 3;

/// What to do with the jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List jobs, the newest first
    List(ListArgs),
    /// Show one job
    Show(ShowArgs),
    /// Ask to cancel the jobs that filters find
    Cancel(BulkArgs),
    /// Run the dead-lettered jobs that filters find anew
    Retry(BulkArgs),
}

/// Which jobs.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// queued, running, completed, failed, cancelled, expired or dead_lettered
    #[arg(long)]
    status: Option<String>,
    /// Task
    #[arg(long)]
    task: Option<String>,
    /// Tenant; another than the token's needs the scope admin
    #[arg(long)]
    tenant: Option<String>,
    /// Submitted since this time (RFC 3339, or 24h for a day ago)
    #[arg(long, value_parser = since, value_name = "TIME")]
    since: Option<u64>,
    /// Jobs at most
    #[arg(long)]
    limit: Option<u32>,
    /// Go on where the page before ended
    #[arg(long)]
    cursor: Option<String>,
}

/// Arguments of `jobs list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `jobs show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Id of the job
    job: JobId,
    /// Whose job it is; another tenant than the token's needs the scope admin
    #[arg(long)]
    tenant: Option<String>,
    /// Print JSON on one line
    #[arg(long)]
    json: bool,
}

/// Arguments of `jobs cancel` and `jobs retry`.
#[derive(Debug, Args)]
pub(crate) struct BulkArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Only say which jobs it would be
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl JobsCommand {
    /// Whether programs read what it prints.
    pub(crate) fn json(&self) -> bool {
        match self {
            Self::List(args) => args.json,
            Self::Show(args) => args.json,
            Self::Cancel(args) | Self::Retry(args) => args.json,
        }
    }
}

impl FilterArgs {
    /// The filters that were given, as the API names them.
    fn pairs(&self) -> Vec<(&'static str, Value)> {
        let since = self.since.map(format_rfc3339);
        let texts = [
            ("status", &self.status),
            ("task", &self.task),
            ("tenant", &self.tenant),
            ("since", &since),
            ("cursor", &self.cursor),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, Value::from(text.clone()?))));
        texts.chain(self.limit.map(|limit| ("limit", limit.into()))).collect()
    }
}

/// Runs the command.
pub(crate) async fn run(settings: &ClientSettings, command: &JobsCommand) -> Result<ExitCode, Failure> {
    match command {
        JobsCommand::List(args) => list(settings, args).await,
        JobsCommand::Show(args) => {
            let query = args.tenant.iter().map(|tenant| ("tenant", tenant.clone().into())).collect();
            let job = ask(settings, &format!("/v1/jobs/{}/view", args.job), Ask::Get(query)).await?;
            let text = if args.json { job.to_string() } else { format!("{job:#}") };
            print_line(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        JobsCommand::Cancel(args) => cancel(settings, args).await,
        JobsCommand::Retry(args) => retry(settings, args).await,
    }
}

async fn list(settings: &ClientSettings, args: &ListArgs) -> Result<ExitCode, Failure> {
    let page = ask(settings, "/v1/jobs", Ask::Get(args.filter.pairs())).await?;
    if args.json {
        print_line(page.to_string().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let cell = |job: &Value, name: &str| match &job[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let columns = ["job_id", "state", "task", "tenant", "lane", "attempt", "submitted_at", "updated_at"];
    let jobs = page["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rows = jobs.iter().map(|job| columns.iter().map(|name| cell(job, name)).collect()).collect();
    table(&["JOB", "STATE", "TASK", "TENANT", "LANE", "ATTEMPT", "SUBMITTED", "UPDATED"], rows)?;
    hints(&page);
    Ok(ExitCode::SUCCESS)
}

/// The body of a request for many jobs: not for all by mistake.
fn bulk(args: &BulkArgs) -> Result<Ask, Failure> {
    let filter = args.filter.pairs();
    if filter.iter().all(|(name, _)| matches!(*name, "limit" | "cursor")) {
        return Err(Failure::Usage("name at least one of --status, --task, --tenant, --since".to_owned()));
    }
    let filter: serde_json::Map<_, _> = filter.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(Ask::Post(json!({ "filter": filter, "dry_run": args.dry_run })))
}

async fn retry(settings: &ClientSettings, args: &BulkArgs) -> Result<ExitCode, Failure> {
    let answer = ask(settings, "/v1/jobs/retry", bulk(args)?).await?;
    let jobs = answer["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let refused = jobs.iter().filter(|job| job["outcome"] == "refused").count();
    if args.json {
        print_line(answer.to_string().as_bytes())?;
    } else {
        for job in jobs {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            // Without a letter it is called as it was asked for: by its id.
            let id = job["job_id"].as_str().map_or_else(|| text(&job["id"]), str::to_owned);
            let line = match text(&job["outcome"]).as_str() {
                "redriven" => format!("{id} runs anew as {}", text(&job["redriven_as"])),
                "would_redrive" => format!("{id} would run anew"),
                _ => format!("{id} refused: {}", text(&job["error"]["message"])),
            };
            print_line(line.as_bytes())?;
        }
        let verb = if args.dry_run { "would run anew" } else { "run anew" };
        eprintln!("{} jobs {verb}, {refused} refused", jobs.len() - refused);
        hints(&answer);
    }
    Ok(if refused > 0 { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

async fn cancel(settings: &ClientSettings, args: &BulkArgs) -> Result<ExitCode, Failure> {
    let answer = ask(settings, "/v1/jobs/cancel", bulk(args)?).await?;
    if args.json {
        print_line(answer.to_string().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let jobs = answer["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    for job in jobs {
        print_line(job.as_str().unwrap_or_default().as_bytes())?;
    }
    let verb = if args.dry_run { "would be asked to end" } else { "were asked to end" };
    eprintln!("{} jobs {verb}", jobs.len());
    hints(&answer);
    Ok(ExitCode::SUCCESS)
}

/// Says on stderr that there is more, or that the view is not complete yet.
fn hints(page: &Value) {
    if let Some(cursor) = page["next"].as_str() {
        eprintln!("there are more: --cursor {cursor}");
    }
    if page["caught_up"] == false {
        eprintln!("the job view is still being read from the events: jobs may be missing");
    }
}

/// What is asked of a path.
enum Ask {
    Get(Vec<(&'static str, Value)>),
    Post(Value),
}

/// The answer of the first server that answers.
async fn ask(settings: &ClientSettings, path: &str, what: Ask) -> Result<Value, Failure> {
    match what {
        Ask::Get(query) => http::get(settings, &with_query(path, &query)).await,
        Ask::Post(body) => http::post(settings, path, &body).await,
    }
}

fn with_query(path: &str, query: &[(&'static str, Value)]) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs = query.iter().map(|(name, value)| (*name, text(value)));
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Milliseconds since the Unix epoch of `2026-11-23T18:30:00Z`, or of `24h` ago.
fn since(text: &str) -> Result<u64, String> {
    match duration(text) {
        Ok(ago) => Ok(now_ms().saturating_sub(ago.as_millis() as u64)),
        Err(_) => parse_rfc3339(text),
    }
}
