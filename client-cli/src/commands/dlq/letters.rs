//! What is asked about dead letters, and how it is printed.

use std::process::ExitCode;

use relay_protocol::dead_letter::{
    Letter, LetterAnswer, LetterFilter, LetterId, LetterOutcome, LetterPage, LetterRequest, LetterResult, WholeLetter,
};
use relay_protocol::time::format_rfc3339;
use relay_protocol::{ErrorCode, JobError};
use serde::Serialize;

use super::args::{ActArgs, ListArgs, ShowArgs};
use crate::commands::cluster::table;
use crate::commands::http;
use crate::output::{Failure, print_line};
use crate::settings::ClientSettings;

/// Letters that are asked for at a time.
const PAGE: u64 = 100;
/// Exit code when some letters were refused.
const REFUSED: u8 = 3;

/// `dlq list`.
pub(super) async fn list(settings: &ClientSettings, args: &ListArgs) -> Result<ExitCode, Failure> {
    let (mut cursor, mut left) = (args.cursor, args.limit);
    let mut letters = Vec::new();
    loop {
        let path = query(args, left.min(PAGE), cursor);
        let page: LetterPage = http::get(settings, &path).await?;
        left = left.saturating_sub(page.letters.len() as u64);
        cursor = page.cursor;
        for letter in page.letters {
            if args.json {
                line(&letter)?;
            } else {
                letters.push(row(letter));
            }
        }
        if cursor.is_none() || left == 0 {
            break;
        }
    }
    if let Some(cursor) = cursor {
        eprintln!("there may be more: --cursor {cursor}");
    }
    if args.json {
        return Ok(ExitCode::SUCCESS);
    }
    table(&["LETTER", "DEAD SINCE", "STATE", "TENANT", "LANE", "TASK", "ATTEMPTS", "JOB", "ERROR"], letters)
}

fn query(args: &ListArgs, limit: u64, cursor: Option<LetterId>) -> String {
    let LetterFilter { lane, task, code, since, until, tenant } = args.filter.filter();
    let fields = [
        ("lane", lane),
        ("task", task.map(|task| task.name().to_owned())),
        ("code", code),
        ("since", since.map(format_rfc3339)),
        ("until", until.map(format_rfc3339)),
        ("tenant", tenant),
        ("state", args.state.clone()),
        ("limit", Some(limit.to_string())),
        ("cursor", cursor.map(|cursor| cursor.to_string())),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    format!("/v1/dlq?{query}")
}

fn row(letter: Letter) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        letter.id.to_string(),
        format_rfc3339(letter.at),
        letter.state.name().to_owned(),
        or_none(letter.tenant),
        or_none(letter.lane),
        or_none(letter.task.map(|task| task.name().to_owned())),
        letter.attempts_made.to_string(),
        or_none(letter.job_id.map(|job| job.to_string())),
        or_none(letter.error.map(|error| error.code)),
    ]
}

/// `dlq show`.
pub(super) async fn show(settings: &ClientSettings, args: &ShowArgs) -> Result<ExitCode, Failure> {
    let letter: WholeLetter = http::get(settings, &format!("/v1/dlq/{}", args.letter)).await?;
    if args.json {
        line(&letter)?;
    } else {
        let text = serde_json::to_string_pretty(&letter).map_err(|error| Failure::Output(error.to_string()))?;
        print_line(text.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `dlq redrive` and `dlq drop`.
pub(super) async fn act(settings: &ClientSettings, args: &ActArgs, what: &str) -> Result<ExitCode, Failure> {
    let mut request = LetterRequest {
        ids: args.letters.iter().map(ToString::to_string).collect(),
        filter: args.filter.filter(),
        everything: args.everything,
        dry_run: args.dry_run,
        limit: None,
        cursor: None,
    };
    if request.ids.is_empty() && request.filter.is_empty() && !request.everything {
        let message = "name letters, or say which with --lane, --task, --code, --since, --until, --tenant; \
                       --everything means every letter that you may see";
        return Err(Failure::Usage(message.to_owned()));
    }
    let (mut done, mut refused) = (0_usize, 0_usize);
    loop {
        let answer: LetterAnswer = http::post(settings, &format!("/v1/dlq/{what}"), &request).await?;
        for result in &answer.letters {
            let count = if result.error.is_some() { &mut refused } else { &mut done };
            *count += 1;
            if args.json { line(result)? } else { tell(result)? }
        }
        match answer.cursor {
            Some(cursor) => request.cursor = Some(cursor),
            None => break,
        }
    }
    if !args.json {
        let dry = if args.dry_run { " (dry run: nothing was done)" } else { "" };
        eprintln!("{what}: {done} letters, {refused} refused{dry}");
    }
    Ok(if refused > 0 { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

fn tell(result: &LetterResult) -> Result<(), Failure> {
    let as_job = result.redriven_as.map(|job| format!(" as job {job}")).unwrap_or_default();
    let id = &result.id;
    let text = match (result.outcome, &result.error) {
        (LetterOutcome::Redriven, _) => format!("{id} redriven{as_job}"),
        (LetterOutcome::Dropped, _) => format!("{id} dropped"),
        (LetterOutcome::WouldRedrive, _) => format!("{id} would be redriven{as_job}"),
        (LetterOutcome::WouldDrop, _) => format!("{id} would be dropped"),
        (LetterOutcome::Refused, Some(error)) => format!("{id} refused: {error}"),
        (LetterOutcome::Refused, None) => format!("{id} refused"),
    };
    Ok(print_line(text.as_bytes())?)
}

fn line(what: &impl Serialize) -> Result<(), Failure> {
    let internal = |error| JobError::new(ErrorCode::Internal, format!("the letter cannot be written: {error}"));
    let text = serde_json::to_string(what).map_err(internal)?;
    Ok(print_line(text.as_bytes())?)
}
