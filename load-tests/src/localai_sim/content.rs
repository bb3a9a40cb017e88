//! Content that is made from the input, so that a mixed-up or truncated input shows in the answer.

use sha2::{Digest, Sha256};

/// Words that answers are made of; a byte of a digest picks one.
const VOCABULARY: [&str; 32] = [
    "amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll", "larch",
    "marsh", "north", "ochre", "pearl", "quill", "reeds", "slate", "thorn", "umber", "vivid", "water", "xenon",
    "yacht", "zonal", "birch", "coral", "dunes", "eagle", "flint", "glade",
];

/// `count` words (at most 32) that follow from `input` and `part`: the SHA-256 of both, a word for each byte.
pub fn words_of(input: &[u8], part: u32, count: usize) -> String {
    let digest = Sha256::new().chain_update(input).chain_update(part.to_le_bytes()).finalize();
    let words: Vec<&str> =
        digest.iter().take(count).filter_map(|byte| VOCABULARY.get(usize::from(byte % 32)).copied()).collect();
    words.join(" ")
}

/// A summary that holds the last sentence of the text.
pub(super) fn summary(text: &str) -> String {
    let last = text.split_inclusive(['.', '!', '?']).map(str::trim).rfind(|sentence| !sentence.is_empty());
    format!("Summary: {}", last.unwrap_or("nothing."))
}

/// A unit vector of `dimensions` numbers that follows from the text.
pub(super) fn embedding(text: &str, dimensions: u32) -> Vec<f64> {
    let raw: Vec<f64> = (0..dimensions.div_ceil(32))
        .flat_map(|part| Sha256::new().chain_update(text).chain_update(part.to_le_bytes()).finalize())
        .take(dimensions as usize)
        .map(|byte| f64::from(byte) - 127.5)
        .collect();
    let length = raw.iter().map(|value| value * value).sum::<f64>().sqrt();
    raw.iter().map(|value| value / length).collect()
}

/// Colours of a picture of 8 × 8 squares that follow from the prompt.
pub(super) fn squares(prompt: &str) -> [[u8; 3]; 64] {
    let mut colours = [[0; 3]; 64];
    for (at, colour) in (0_u32..).zip(&mut colours) {
        let digest = Sha256::new().chain_update(prompt).chain_update(at.to_le_bytes()).finalize();
        colour.copy_from_slice(&digest[..3]);
    }
    colours
}
