//! A model is gone when it was gone for a while.

use super::{Lately, MODEL_GONE_MS};

#[test]
fn a_model_is_gone_after_a_time_without_any_list_that_has_it() {
    let (model, other) = ("m".to_owned(), "o".to_owned());
    let mut lately = Lately::default();
    lately.listed(0, [&model]);
    lately.listed(10, [&other]);
    lately.listed(MODEL_GONE_MS - 1, [&other]);
    assert!(lately.has("m") && lately.has("o") && !lately.has("n"));
    lately.listed(MODEL_GONE_MS, [&other]);
    assert!(!lately.has("m") && lately.has("o"));
}
