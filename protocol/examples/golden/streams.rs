//! Vectors of live streams.

use std::error::Error;

use relay_protocol::chunk::{
    ChunkAckV1, ChunkV1, DiscontinuityV1, FromV1, MissedV1, PublishV1, PublishingV1, StreamEndV1, SubscribeV1,
    SubscribedV1, TrackV1,
};

use crate::{Vector, message};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const INCARNATION: u64 = 1_795_458_600_123;

fn tracks() -> Vec<TrackV1> {
    vec![
        TrackV1 { track: 0, media_type: "audio/ogg; codecs=opus".to_owned() },
        TrackV1 { track: 1_000, media_type: "text/plain".to_owned() },
    ]
}

pub(crate) fn vectors() -> Result<Vec<Vector>, Box<dyn Error>> {
    let mut vectors = publishing()?;
    vectors.extend(subscribing()?);
    Ok(vectors)
}

fn publishing() -> Result<Vec<Vector>, Box<dyn Error>> {
    let chunk = ChunkV1 { stream: 1, track: 0, group: 3, seq: 7, at_us: 60_000, sent_at_us: 1_795_458_600_123_456 };
    let publish = PublishV1 {
        request: 1,
        stream: "studio/main".to_owned(),
        incarnation: INCARNATION,
        tracks: tracks(),
        traceparent: Some(TRACEPARENT.to_owned()),
    };
    let publishing =
        PublishingV1 { request: 1, stream: 1, home_incarnation: 42, next: vec![(0, 0), (1_000, 70_000)], copies: 2 };
    Ok(vec![
        message("", &chunk, b"ogg")?,
        message("", &publish, b"")?,
        message("no_trace", &PublishV1 { tracks: Vec::new(), traceparent: None, ..publish.clone() }, b"")?,
        message("", &publishing, b"")?,
        message("", &ChunkAckV1 { stream: 1, track: 0, next: 8 }, b"")?,
    ])
}

fn subscribing() -> Result<Vec<Vector>, Box<dyn Error>> {
    let subscribe = |from, lossless, traceparent: Option<&str>| SubscribeV1 {
        request: 2,
        stream: "studio/main".to_owned(),
        from,
        lossless,
        traceparent: traceparent.map(str::to_owned),
    };
    let subscribed = SubscribedV1 {
        request: 2,
        stream: 5,
        incarnation: INCARNATION,
        tracks: tracks(),
        next: vec![(0, 251), (1_000, 65_536)],
    };
    let end = |reason: &str| StreamEndV1 {
        stream: 5,
        incarnation: INCARNATION + 1,
        reason: reason.to_owned(),
        next: vec![(0, 4_294_967_296)],
    };
    Ok(vec![
        message("latest", &subscribe(FromV1::Latest, false, None), b"")?,
        message("start", &subscribe(FromV1::Start, true, None), b"")?,
        message("seq", &subscribe(FromV1::Seq(4_294_967_295), true, Some(TRACEPARENT)), b"")?,
        message("", &subscribed, b"")?,
        message("", &MissedV1 { stream: 5, track: 0, from: 251, to: 300 }, b"")?,
        message("", &DiscontinuityV1 { stream: 5, incarnation: INCARNATION + 1, next: vec![(0, 301)] }, b"")?,
        message("", &end("ended"), b"")?,
        message("publisher_lost", &end("publisher_lost"), b"")?,
    ])
}
