//! Memory does not grow with the length of the sound. A test binary of its own: it looks at the whole process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Read, Seek, SeekFrom};

use relay_node::backend::builtin::{BuiltinTask, Cancelled, Limits, Source, run};
use serde_json::{Map, Value};

const RATE: u32 = 48_000;
const CHANNELS: u16 = 2;
const HEADER_BYTES: u64 = 44;

/// A WAV of noise that is nowhere as a whole: its bytes are made when they are read.
struct Endless {
    at: u64,
    header: Vec<u8>,
    bytes: u64,
}

impl Endless {
    fn new(seconds: u32) -> Self {
        let data = seconds * RATE * u32::from(CHANNELS) * 2;
        let mut header = b"RIFF".to_vec();
        header.extend((data + 36).to_le_bytes());
        header.extend(b"WAVEfmt \x10\0\0\0\x01\0");
        header.extend(CHANNELS.to_le_bytes());
        header.extend(RATE.to_le_bytes());
        header.extend((RATE * u32::from(CHANNELS) * 2).to_le_bytes());
        header.extend((CHANNELS * 2).to_le_bytes());
        header.extend(b"\x10\0data");
        header.extend(data.to_le_bytes());
        assert_eq!(header.len() as u64, HEADER_BYTES);
        Self { at: 0, header, bytes: HEADER_BYTES + u64::from(data) }
    }
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(usize::try_from(self.bytes - self.at).unwrap_or(usize::MAX));
        for (at, byte) in (self.at..).zip(&mut into[..length]) {
            *byte = match self.header.get(at as usize) {
                Some(&byte) => byte,
                None => (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8 & 0x1F,
            };
        }
        self.at += length as u64;
        Ok(length)
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::End(by) => self.bytes.saturating_add_signed(by),
            SeekFrom::Current(by) => self.at.saturating_add_signed(by),
        }
        .min(self.bytes);
        Ok(self.at)
    }
}

/// The most memory this process ever had resident, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn duration(task: BuiltinTask, seconds: u32) -> Value {
    let file = Endless::new(seconds);
    let bytes = file.bytes;
    let source = Source::new(file, bytes);
    let mut progress = |_: f32| Ok::<(), Cancelled>(());
    run(task, &Map::new(), source, &Limits::default(), &mut progress).unwrap().result["duration_s"].clone()
}

#[test]
fn memory_does_not_grow_with_the_length_of_the_sound() {
    // Once with little, so that tables and code are in memory.
    for task in [BuiltinTask::Loudness, BuiltinTask::Waveform, BuiltinTask::Vad] {
        assert_eq!(duration(task, 2), 2.0);
    }
    let before = peak_mib();
    // As floats: 439, 439 and 88 MiB.
    assert_eq!(duration(BuiltinTask::Loudness, 1_200), 1_200.0);
    assert_eq!(duration(BuiltinTask::Waveform, 1_200), 1_200.0);
    assert_eq!(duration(BuiltinTask::Vad, 240), 240.0);
    let grown = peak_mib() - before;
    assert!(grown < 16, "{grown} MiB more than for two seconds");
}
