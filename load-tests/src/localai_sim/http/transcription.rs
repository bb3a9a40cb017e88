//! `POST /v1/audio/transcriptions`: a form with a file; text, segments, words, subtitles, or a stream.

use actix_multipart::Multipart;
use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use serde_json::{Value, json};

use super::super::State;
use super::super::audio::{self, Segment};
use super::super::failure::Failure;
use super::super::settings::Kind;
use super::admission::Admitted;
use super::stream;

/// What the form held.
#[derive(Default)]
struct Form {
    file: Option<(String, Bytes)>,
    model: Option<String>,
    format: Option<String>,
    words: bool,
    stream: bool,
}

/// Handles a request.
pub(super) async fn transcribe(state: web::Data<State>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let is_form = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !is_form.is_some_and(|kind| kind.starts_with("multipart/form-data")) {
        return Failure::internal("request Content-Type isn't multipart/form-data").response();
    }
    let form = match read(Multipart::new(request.headers(), body)).await {
        Ok(form) => form,
        Err(error) => return Failure::internal(error.to_string()).response(),
    };
    match start(&state, form) {
        Ok((admitted, name, file, form)) if form.stream => {
            stream::answer("text/event-stream", move |sink| async move {
                let outcome = streamed(admitted, &name, file, &sink).await;
                sink.end(outcome).await;
            })
        }
        Ok((admitted, name, file, form)) => {
            whole(admitted, &name, file, &form).await.unwrap_or_else(|failure| failure.response())
        }
        Err((failure, true)) => {
            stream::answer("text/event-stream", move |sink| async move { sink.end(Err(failure)).await })
        }
        Err((failure, false)) => failure.response(),
    }
}

type Started = (Admitted, String, Bytes, Form);

/// Finds model and file; an unknown model fails with its status even when a stream was asked for.
fn start(state: &web::Data<State>, mut form: Form) -> Result<Started, (Failure, bool)> {
    let model = state.model(form.model.as_deref(), Kind::Transcript).map_err(|failure| (failure, false))?;
    let Some((name, file)) = form.file.take() else { return Err((Failure::internal("http: no such file"), false)) };
    let admitted = Admitted::enter(state, &model).map_err(|failure| (failure, form.stream))?;
    Ok((admitted, name, file, form))
}

async fn read(mut form: Multipart) -> Result<Form, actix_multipart::MultipartError> {
    let mut read = Form::default();
    while let Some(mut field) = form.try_next().await? {
        let name = field.name().unwrap_or_default().to_owned();
        let file_name =
            field.content_disposition().and_then(|disposition| disposition.get_filename().map(str::to_owned));
        let mut bytes = BytesMut::new();
        while let Some(part) = field.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        let text = || String::from_utf8_lossy(&bytes).into_owned();
        match name.as_str() {
            "file" => read.file = Some((file_name.unwrap_or_default(), bytes.freeze())),
            "model" => read.model = Some(text()),
            "response_format" => read.format = Some(text()),
            "timestamp_granularities[]" => read.words |= text() == "word",
            "stream" => read.stream = text() == "true",
            _ => {}
        }
    }
    Ok(read)
}

/// Decodes on a thread where that is allowed to take its time.
async fn decode(name: &str, file: &Bytes) -> Result<f64, Failure> {
    let bytes = file.clone();
    let duration = web::block(move || audio::duration_s(&bytes)).await.ok().flatten();
    duration.ok_or_else(|| Failure::undecodable(name))
}

async fn whole(mut admitted: Admitted, name: &str, file: Bytes, form: &Form) -> Result<HttpResponse, Failure> {
    let run = async {
        let duration = decode(name, &file).await?;
        admitted.turn(duration).await?.do_share(1.0).await?;
        formatted(&file, duration, form)
    };
    let outcome = run.await;
    admitted.ended(outcome)
}

/// The answer in the wanted format. An unknown one fails after all the work is done, as recorded.
fn formatted(file: &[u8], duration: f64, form: &Form) -> Result<HttpResponse, Failure> {
    let segments = audio::segments(file, duration);
    let plain = |body: String| HttpResponse::Ok().content_type("text/plain; charset=UTF-8").body(body);
    let mut facts = json!({ "text": audio::text(&segments), "language": "en", "duration": duration });
    match form.format.as_deref() {
        Some("json") => {}
        None | Some("verbose_json") => {
            let listed: Vec<Value> =
                (0..).zip(&segments).map(|(id, segment)| described(id, segment, form.words)).collect();
            if form.words {
                facts["words"] = segments.iter().flat_map(audio::words).collect();
            }
            facts["segments"] = listed.into();
        }
        Some("srt") => return Ok(plain(subtitles(&segments, ',', true))),
        Some("vtt") => return Ok(plain(format!("WEBVTT\n{}", subtitles(&segments, '.', false)))),
        Some("lrc") => {
            let line = |segment: &Segment| format!("[{}] {}", stamp(segment.end, None), segment.text);
            let lines: Vec<String> = segments.iter().map(line).collect();
            return Ok(plain(format!("[by:LocalAI]\n[re:LocalAI]\n\n{}\n", lines.join("\n"))));
        }
        Some(_) => return Err(Failure::internal("invalid response_format")),
    }
    Ok(HttpResponse::Ok().json(facts))
}

fn described(id: u32, segment: &Segment, words: bool) -> Value {
    let mut described =
        json!({ "id": id, "start": segment.start, "end": segment.end, "text": segment.text, "tokens": null });
    if words {
        described["words"] = audio::words(segment).into();
    }
    described
}

/// `HH:MM:SS` with milliseconds after `point`.
fn stamp(seconds: f64, point: Option<char>) -> String {
    let ms = (seconds * 1_000.0) as u64;
    let whole = format!("{:02}:{:02}:{:02}", ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    point.map_or_else(|| whole.clone(), |point| format!("{whole}{point}{:03}", ms % 1_000))
}

fn subtitles(segments: &[Segment], point: char, numbered: bool) -> String {
    let mut text = String::new();
    for (number, segment) in (1..).zip(segments) {
        let number = if numbered { format!("{number}\n") } else { String::new() };
        let (start, end) = (stamp(segment.start, Some(point)), stamp(segment.end, Some(point)));
        text.push_str(&format!("\n{number}{start} --> {end}\n{}\n", segment.text));
    }
    text
}

/// Sends each segment once its share of the work is done, then the whole.
async fn streamed(mut admitted: Admitted, name: &str, file: Bytes, sink: &stream::Sink) -> Result<(), Failure> {
    let run = async {
        let duration = decode(name, &file).await?;
        let turn = admitted.turn(duration).await?;
        let segments = audio::segments(&file, duration);
        for (at, segment) in segments.iter().enumerate() {
            turn.do_share((segment.end - segment.start) / duration).await?;
            let space = if at == 0 { "" } else { " " };
            let delta = format!("{space}{}", segment.text);
            sink.message(&json!({ "delta": delta, "type": "transcript.text.delta" })).await;
        }
        let brief = |(id, segment): (u32, &Segment)| json!({ "id": id, "start": segment.start, "end": segment.end, "text": segment.text });
        let listed: Vec<Value> = (0..).zip(&segments).map(brief).collect();
        sink.message(&json!({
            "duration": duration,
            "language": "en",
            "segments": listed,
            "text": audio::text(&segments),
            "type": "transcript.text.done",
        }))
        .await;
        Ok(())
    };
    let outcome = run.await;
    admitted.ended(outcome)
}
