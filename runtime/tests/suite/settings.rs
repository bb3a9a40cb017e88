//! Layers, variables, lists and the words of errors.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use relay_runtime::auth::{AuthSettings, LIST_KEYS, Scope, ScopeSet, TokenHash};
use relay_runtime::settings::{SettingsError, empty_is_none, load, process_env};
use serde::Deserialize;

const DEFAULTS: &str = r#"
listen = "127.0.0.1:8700"
[node]
name = "node"
[limits]
jobs_in_flight_max = 8
ratio = 0.5
verbose = false
[backends]
static = ["http://a"]
"#;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Settings {
    listen: String,
    node: Node,
    limits: Limits,
    backends: Backends,
    #[serde(default)]
    store: Option<Store>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Node {
    name: String,
    #[serde(default, deserialize_with = "empty_is_none")]
    zone: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Limits {
    jobs_in_flight_max: u32,
    ratio: f64,
    verbose: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Backends {
    r#static: Vec<String>,
    #[serde(default)]
    kind: Kind,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Fast,
    Slow,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Store {
    url: String,
    secret_key_bits: u32,
}

const LISTS: &[&str] = &["backends.static"];

fn env(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn with_env(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    load(DEFAULTS, None, env(pairs), LISTS)
}

fn with_file(text: &str, pairs: &[(&str, &str)]) -> (PathBuf, Result<Settings, SettingsError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.toml");
    std::fs::write(&path, text).unwrap();
    let settings = load(DEFAULTS, Some(&path), env(pairs), LISTS);
    (path, settings)
}

fn words(result: Result<Settings, SettingsError>) -> String {
    result.expect_err("must be refused").to_string()
}

#[test]
fn defaults_alone_are_enough() {
    let settings = with_env(&[]).unwrap();
    assert_eq!(settings.listen, "127.0.0.1:8700");
    assert_eq!(settings.limits, Limits { jobs_in_flight_max: 8, ratio: 0.5, verbose: false });
    assert_eq!(settings.backends.r#static, ["http://a"]);
}

#[test]
fn the_file_wins_over_the_defaults_and_the_environment_over_both() {
    let file = "[node]\nname = \"file\"\n[limits]\njobs_in_flight_max = 16\nratio = 0.75\n";
    let (_, settings) = with_file(file, &[("RELAY__LIMITS__JOBS_IN_FLIGHT_MAX", "32")]);
    let settings = settings.unwrap();
    assert_eq!(settings.node.name, "file");
    assert_eq!(settings.limits, Limits { jobs_in_flight_max: 32, ratio: 0.75, verbose: false });
}

#[test]
fn a_top_level_key_has_two_underscores_too() {
    assert_eq!(with_env(&[("RELAY__LISTEN", "[::1]:9")]).unwrap().listen, "[::1]:9");
}

#[test]
fn text_that_looks_like_something_else_stays_text() {
    for text in ["007", "1e5", "12e4", "true", "no", "0x10", "1.0", "-0", "inf", " a ", "a,b", "", "ünïcode", "a=b;c"]
    {
        let settings = with_env(&[("RELAY__NODE__NAME", text)]).unwrap();
        assert_eq!(settings.node.name, text);
    }
}

#[test]
fn numbers_and_flags_are_read_from_text() {
    let pairs = [
        ("RELAY__LIMITS__JOBS_IN_FLIGHT_MAX", "007"),
        ("RELAY__LIMITS__RATIO", "1e-2"),
        ("RELAY__LIMITS__VERBOSE", "true"),
        ("RELAY__BACKENDS__KIND", "slow"),
    ];
    let settings = with_env(&pairs).unwrap();
    assert_eq!(settings.limits, Limits { jobs_in_flight_max: 7, ratio: 0.01, verbose: true });
    assert_eq!(settings.backends.kind, Kind::Slow);
}

#[test]
fn lists_are_split_at_commas_and_replace_the_whole_list() {
    let list = |value| with_env(&[("RELAY__BACKENDS__STATIC", value)]).unwrap().backends.r#static;
    assert_eq!(list("http://x:1"), ["http://x:1"]);
    assert_eq!(list("http://x:1, http://y:2 ,"), ["http://x:1", "http://y:2"]);
    assert_eq!(list("007,1e5,true"), ["007", "1e5", "true"], "items stay text");
    assert_eq!(list("42"), ["42"], "a single number is a list of one text");
    assert!(list("").is_empty());
    assert!(list(" , ").is_empty());
    let (_, settings) = with_file("[backends]\nstatic = [\"http://f\"]\n", &[("RELAY__BACKENDS__STATIC", "")]);
    assert!(settings.unwrap().backends.r#static.is_empty(), "an empty variable empties the file's list");
}

#[test]
fn an_empty_variable_unsets_an_optional_text() {
    let (_, settings) = with_file("[node]\nzone = \"eu\"\n", &[]);
    assert_eq!(settings.unwrap().node.zone.as_deref(), Some("eu"));
    let (_, settings) = with_file("[node]\nzone = \"eu\"\n", &[("RELAY__NODE__ZONE", "")]);
    assert_eq!(settings.unwrap().node.zone, None);
}

#[test]
fn an_optional_section_can_be_made_by_variables_alone() {
    let settings = with_env(&[("RELAY__STORE__URL", "s3://x"), ("RELAY__STORE__SECRET_KEY_BITS", "8")]).unwrap();
    assert_eq!(settings.store, Some(Store { url: "s3://x".to_owned(), secret_key_bits: 8 }));
}

#[test]
fn variables_with_one_underscore_and_foreign_ones_are_no_settings() {
    let pairs =
        [("RELAY_URL", "x"), ("RELAY_TOKEN", "y"), ("RELAY_NODE__NAME", "z"), ("XRELAY__A", "1"), ("PATH", "/")];
    assert_eq!(with_env(&pairs).unwrap(), with_env(&[]).unwrap());
}

#[test]
fn an_unknown_variable_stops_the_start() {
    for (name, key) in [
        ("RELAY__TYPO__X", "typo"),
        ("RELAY__TYPO", "typo"),
        ("RELAY__NODE__NAMES", "node.names"),
        ("RELAY__STORE__BUCKET", "store.bucket"),
        ("relay__typo__x", "typo"),
    ] {
        let words = words(with_env(&[(name, "1")]));
        assert!(
            words.contains(&format!("`{key}`")) && words.contains(name) && words.contains("unknown key"),
            "{words}"
        );
    }
    let error = with_env(&[("RELAY__NODE__NAMES", "1")]).unwrap_err().to_string();
    assert!(error.contains("expected `name` or `zone`"), "says what there is: {error}");
}

#[test]
fn an_unknown_key_in_the_file_stops_the_start() {
    for (text, key) in [("nod = 1", "nod"), ("[node]\nnmae = \"x\"", "node.nmae"), ("[nodes]\nname = \"x\"", "nodes")] {
        let (path, settings) = with_file(text, &[]);
        let words = words(settings);
        assert!(words.contains(&format!("`{key}`")), "{words}");
        assert!(words.contains(&path.display().to_string()) && words.contains("unknown key"), "{words}");
    }
}

#[test]
fn a_wrong_value_is_named_with_its_key_and_where_it_comes_from() {
    let text = words(with_env(&[("RELAY__LIMITS__JOBS_IN_FLIGHT_MAX", "many")]));
    for part in ["`limits.jobs_in_flight_max`", "RELAY__LIMITS__JOBS_IN_FLIGHT_MAX", "\"many\"", "integer"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    let (path, settings) = with_file("[limits]\nratio = \"high\"\n", &[]);
    let text = words(settings);
    for part in ["`limits.ratio`", &path.display().to_string(), "\"high\""] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    let text = words(with_env(&[("RELAY__BACKENDS__KIND", "medium")]));
    assert!(
        text.contains("backends.kind") && text.contains("medium") && text.contains("RELAY__BACKENDS__KIND"),
        "{text}"
    );
    for value in ["-1", "4294967296", "1.5", ""] {
        let text = words(with_env(&[("RELAY__LIMITS__JOBS_IN_FLIGHT_MAX", value)]));
        assert!(text.contains(value) && text.contains("`limits.jobs_in_flight_max`"), "{text}");
    }
}

#[test]
fn a_value_where_a_section_belongs_is_refused() {
    let text = words(with_env(&[("RELAY__NODE", "x")]));
    assert!(text.contains("`node`") && text.contains("RELAY__NODE"), "{text}");
    let (_, settings) = with_file("node = 5\n", &[]);
    assert!(words(settings).contains("`node`"));
}

#[test]
fn contradicting_variables_are_refused_instead_of_left_to_chance() {
    let text = words(with_env(&[("RELAY__NODE", "x"), ("RELAY__NODE__NAME", "y")]));
    assert!(text.contains("RELAY__NODE__NAME") && text.contains("contradicts"), "{text}");
    let text = words(with_env(&[("RELAY__LISTEN", "a"), ("relay__listen", "b")]));
    assert!(text.contains("contradicts"), "{text}");
}

#[test]
fn a_variable_that_is_no_key_is_refused() {
    for name in ["RELAY__", "RELAY__NODE__", "RELAY____NAME", "RELAY__NODE__NA.ME", "RELAY__A[0]"] {
        let text = words(with_env(&[(name, "x")]));
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn a_missing_key_is_named_with_its_variable() {
    let text = words(with_env(&[("RELAY__STORE__URL", "s3://x")]));
    assert!(text.contains("secret_key_bits") && text.contains("missing"), "{text}");
    let defaults = DEFAULTS.replace("name = \"node\"", "");
    let text = words(load(&defaults, None, env(&[]), LISTS));
    assert!(text.contains("`node.name`") && text.contains("RELAY__NODE__NAME"), "{text}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let missing = Path::new("/nonexistent/relay.toml");
    let text = words(load(DEFAULTS, Some(missing), env(&[]), LISTS));
    assert!(text.contains("/nonexistent/relay.toml") && text.contains("No such file"), "{text}");

    let (path, settings) = with_file("[node]\nname = \n", &[]);
    let text = words(settings);
    assert!(text.contains(&path.display().to_string()) && text.contains("line 2"), "{text}");

    let text = words(load("listen = ", None, env(&[]), LISTS));
    assert!(text.contains("built-in defaults"), "{text}");
}

#[test]
fn a_file_without_an_ending_is_read_as_toml() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    std::fs::write(&path, "listen = \"x:1\"").unwrap();
    let settings: Settings = load(DEFAULTS, Some(&path), env(&[]), LISTS).unwrap();
    assert_eq!(settings.listen, "x:1");
}

#[test]
fn the_environment_of_the_process_is_cut_down_to_settings() {
    assert!(std::env::vars_os().count() > 0, "there is an environment to cut down");
    let env = process_env().unwrap();
    assert!(env.keys().all(|name| name.starts_with("RELAY__")), "{env:?}");
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WithAuth {
    #[serde(default)]
    auth: AuthSettings,
}

fn with_auth(file: &str, pairs: &[(&str, &str)]) -> Result<AuthSettings, SettingsError> {
    Ok(load::<WithAuth>(file, None, env(pairs), &LIST_KEYS)?.auth)
}

/// SHA-256 of `ab`; chosen because its digits and a following `e` could be read as a number elsewhere.
const HASH: &str = "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603";
const NUMBER_LIKE: &str = "1234567890123456789012345678901234567890123456789012345678901e10";

#[test]
fn tokens_are_read_from_tables_texts_and_variables() {
    let table = format!(
        "[auth]\ntokens = [{{ subject = \"007\", tenant = \"t\", scopes = [\"jobs:read\", \"jobs:write\"], sha256 = \"{HASH}\" }}]"
    );
    let text = format!("[auth]\ntokens = [\"007/t/jobs:write+jobs:read/{HASH}\"]");
    let variable = format!("007/t/jobs:write+jobs:read/{HASH}");
    let from_table = with_auth(&table, &[]).unwrap().tokens;
    assert_eq!(from_table[0].subject, "007");
    assert_eq!(from_table[0].sha256, TokenHash::of("ab"));
    assert_eq!(from_table[0].scopes, [Scope::JobsRead, Scope::JobsWrite].into_iter().collect::<ScopeSet>());
    assert_eq!(with_auth(&text, &[]).unwrap().tokens, from_table);
    assert_eq!(with_auth("", &[("RELAY__AUTH__TOKENS", &variable)]).unwrap().tokens, from_table);
    let two = format!("{variable},a/b/c/admin/{NUMBER_LIKE}");
    let tokens = with_auth("", &[("RELAY__AUTH__TOKENS", &two)]).unwrap().tokens;
    assert_eq!((tokens[1].subject.as_str(), tokens[1].tenant.as_str()), ("a/b", "c"));
    assert_eq!(format!("{:?}", tokens[1].sha256), NUMBER_LIKE, "digits stay digits");
    assert!(with_auth(&table, &[("RELAY__AUTH__TOKENS", "")]).unwrap().is_open());
}

#[test]
fn a_wrong_token_entry_is_refused_with_its_reason() {
    let long = format!("a/b/jobs:read/{HASH}0");
    let scope = format!("a/b/jobs:all/{HASH}");
    for (value, reason) in
        [("x", "SUBJECT/TENANT"), ("a/b/admin/12", "64 hex"), (&long, "64 hex"), (&scope, "jobs:write, jobs:read")]
    {
        let error = with_auth("", &[("RELAY__AUTH__TOKENS", value)]).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("RELAY__AUTH__TOKENS"), "{error}");
    }
    let extra = format!(
        "[auth]\ntokens = [{{ subject = \"a\", tenant = \"t\", scopes = [], sha256 = \"{HASH}\", admin = true }}]"
    );
    let error = with_auth(&extra, &[]).unwrap_err().to_string();
    assert!(error.contains("admin") && error.contains("auth.tokens"), "{error}");
}

#[test]
fn a_token_in_the_place_of_its_hash_is_not_shown() {
    let table = "[auth]\ntokens = [{ subject = \"a\", tenant = \"t\", scopes = [\"admin\"], sha256 = \"hunter2\" }]";
    for result in [with_auth(table, &[]), with_auth("", &[("RELAY__AUTH__TOKENS", "a/t/admin/hunter2")])] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("64 hex") && error.contains("auth.tokens[0]") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_value_that_only_its_type_can_judge_is_shown() {
    #[derive(Debug, Deserialize)]
    struct Bind {
        #[allow(dead_code, reason = "only its parsing matters")]
        address: std::net::IpAddr,
    }
    let pairs = env(&[("RELAY__ADDRESS", "1.2.3")]);
    let error = load::<Bind>("", None, pairs, &[]).unwrap_err().to_string();
    assert!(error.contains("`address`") && error.contains("1.2.3") && error.contains("RELAY__ADDRESS"), "{error}");
}

#[test]
fn the_examples_of_the_documentation_are_valid() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Documented {
        #[serde(default)]
        auth: AuthSettings,
        telemetry: Option<relay_runtime::telemetry::TelemetrySettings>,
    }
    let pages = [include_str!("../../../docs/configuration.md"), include_str!("../../../docs/security.md")];
    let examples: Vec<_> = pages.iter().flat_map(|page| page.split("```toml\n").skip(1)).collect();
    assert_eq!(examples.len(), 4);
    let mut seen = (0, 0, 0);
    for example in examples {
        let toml = example.split("```").next().unwrap();
        let read: Documented = load(toml, None, env(&[]), &LIST_KEYS).unwrap();
        seen.0 += usize::from(read.telemetry.is_some());
        seen.1 += read.auth.tokens.len();
        seen.2 += usize::from(read.auth.jwt.is_some());
    }
    assert_eq!(seen, (1, 1, 1));
}

#[test]
fn the_messages_of_the_documentation_are_the_real_ones() {
    let page = include_str!("../../../docs/configuration.md");
    let text = words(with_env(&[("RELAY__LIMITS__JOBS_IN_FLIGHT_MAX", "many")]));
    assert!(page.contains(&text), "{text}");
    let (path, settings) = with_file("[node]\nnmae = 1\n", &[]);
    let text = words(settings).replace(path.to_str().unwrap(), "/etc/relay/node.toml");
    assert!(page.contains(&text), "{text}");
}

proptest! {
    #[test]
    fn no_variable_makes_loading_panic(name in "RELAY__[A-Z_]{0,12}(__[A-Z0-9_.\\[\\]-]{0,8}){0,3}", value in "\\PC{0,20}") {
        // Either a clear refusal or settings: nothing else. Every name here is unknown or a known key.
        match with_env(&[(&name, &value)]) {
            Ok(_) => {}
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_text_arrives_unchanged(value in "\\PC{0,40}") {
        prop_assert_eq!(with_env(&[("RELAY__NODE__NAME", &value)]).unwrap().node.name, value);
    }
}
