//! Static tokens, scopes, bearer headers, and the refusal to open a door by accident.

use std::process::Command;

use proptest::prelude::*;
use relay_protocol::ErrorCode;
use relay_runtime::auth::{
    AuthError, AuthSettings, Authenticator, BEARER_BYTES_MAX, Identity, LIST_KEYS, STATIC_TOKENS_MAX, Scope, ScopeSet,
    StaticToken, TokenHash, UnknownScope, bearer_from_header, check_bind,
};
use relay_runtime::settings::load;

fn token(subject: &str, tenant: &str, scopes: &[Scope], token: &str) -> StaticToken {
    let scopes = scopes.iter().copied().collect();
    StaticToken { subject: subject.to_owned(), tenant: tenant.to_owned(), scopes, sha256: TokenHash::of(token) }
}

fn settings(tokens: Vec<StaticToken>) -> AuthSettings {
    AuthSettings { tokens, jwt: None }
}

fn two() -> Authenticator {
    let tokens = vec![
        token("ann", "red", &[Scope::JobsRead], "token-of-ann"),
        token("bob", "blue", &[Scope::Admin], "token-of-bob"),
    ];
    Authenticator::new(&settings(tokens)).unwrap()
}

fn reason(result: Result<Identity, AuthError>) -> String {
    let error = result.expect_err("must be refused");
    assert_eq!(error.code(), ErrorCode::Unauthenticated);
    error.to_string()
}

#[test]
fn each_token_is_its_own_identity() {
    let ann = two().authenticate(Some("token-of-ann")).unwrap();
    assert_eq!((ann.subject.as_str(), ann.tenant.as_str()), ("ann", "red"));
    let bob = two().authenticate(Some("token-of-bob")).unwrap();
    assert_eq!((bob.subject.as_str(), bob.tenant.as_str()), ("bob", "blue"));
}

#[test]
fn whatever_is_not_a_known_token_is_refused() {
    let auth = two();
    let hash = format!("{:?}", TokenHash::of("token-of-ann"));
    for bearer in ["", "token-of-an", "token-of-ann ", "TOKEN-OF-ANN", "token-of-annn", hash.as_str(), "a.b.c"] {
        assert!(reason(auth.authenticate(Some(bearer))).contains("unknown token"), "{bearer:?}");
    }
    assert!(reason(auth.authenticate(None)).contains("Authorization: Bearer"));
    let long = "x".repeat(BEARER_BYTES_MAX + 1);
    assert!(reason(auth.authenticate(Some(&long))).contains("too long"));
}

#[test]
fn without_settings_everyone_is_anonymous_and_may_do_everything() {
    let auth = Authenticator::new(&AuthSettings::default()).unwrap();
    assert!(auth.is_open());
    for bearer in [None, Some("whatever")] {
        let identity = auth.authenticate(bearer).unwrap();
        assert_eq!((identity.subject.as_str(), identity.tenant.as_str()), ("anonymous", "default"));
        assert!(Scope::ALL.iter().all(|&scope| identity.require(scope).is_ok()));
    }
    assert!(!two().is_open());
}

#[test]
fn a_scope_opens_its_own_door_and_no_other() {
    for held in Scope::ALL {
        let identity = Identity { subject: "s".into(), tenant: "t".into(), scopes: [held].into_iter().collect() };
        for asked in Scope::ALL {
            let expected = held == asked || held == Scope::Admin;
            match identity.require(asked) {
                Ok(()) => assert!(expected, "{held} must not open {asked}"),
                Err(error) => {
                    assert!(!expected, "{held} must open {asked}");
                    assert_eq!(error.code(), ErrorCode::Forbidden);
                    assert!(error.to_string().contains(asked.name()), "{error}");
                }
            }
        }
    }
}

#[test]
fn scope_names_are_stable_and_read_back() {
    let names: Vec<_> = Scope::ALL.iter().map(|scope| scope.name()).collect();
    let expected = [
        "jobs:write",
        "jobs:read",
        "jobs:cancel",
        "streams:publish",
        "streams:subscribe",
        "cluster:read",
        "cluster:node",
        "admin",
    ];
    assert_eq!(names, expected);
    assert!(Scope::ALL.iter().all(|scope| scope.name().parse() == Ok(*scope)));
    assert_eq!("Jobs:read".parse::<Scope>(), Err(UnknownScope("Jobs:read".to_owned())));
    assert!(UnknownScope("x".to_owned()).to_string().contains("streams:subscribe"));
}

#[test]
fn a_set_shows_what_was_given_without_what_admin_implies() {
    let set = ScopeSet::from_claim(" admin  openid jobs:read\tprofile ");
    assert_eq!(set.to_string(), "jobs:read admin");
    assert_eq!(set.iter().collect::<Vec<_>>(), [Scope::JobsRead, Scope::Admin]);
    assert!(ScopeSet::from_claim("openid").is_empty());
    assert!(ScopeSet::from_claim("").is_empty());
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    let refusal = |tokens| Authenticator::new(&settings(tokens)).unwrap_err().to_string();
    let good = || token("a", "t", &[Scope::Admin], "one");
    assert!(refusal(vec![good(), token("b", "t", &[Scope::JobsRead], "one")]).contains("twice"));
    assert!(refusal(vec![token("a", "t", &[], "one")]).contains("no scope"));
    assert!(refusal(vec![token("", "t", &[Scope::Admin], "one")]).contains("names have"));
    assert!(refusal(vec![token("a", "t\n", &[Scope::Admin], "one")]).contains("names have"));
    assert!(refusal(vec![token(&"a".repeat(256), "t", &[Scope::Admin], "one")]).contains("names have"));
    let many = (0..=STATIC_TOKENS_MAX).map(|n| token("a", "t", &[Scope::Admin], &n.to_string())).collect();
    assert!(refusal(many).contains("1025 tokens"));
}

#[test]
fn debug_output_never_holds_a_token() {
    let auth = two();
    let shown = format!("{auth:?} {:?}", auth.authenticate(Some("nope")));
    assert!(!shown.contains("token-of") && !shown.contains("nope"), "{shown}");
}

#[test]
fn the_bearer_is_read_from_the_header() {
    assert_eq!(bearer_from_header(None), Ok(None));
    assert_eq!(bearer_from_header(Some("Bearer abc")), Ok(Some("abc")));
    assert_eq!(bearer_from_header(Some("bearer abc")), Ok(Some("abc")));
    assert_eq!(bearer_from_header(Some(" BEARER   a.b-c_d~e+f/g=  ")), Ok(Some("a.b-c_d~e+f/g=")));
    for wrong in
        ["", "Bearer", "Bearer ", "abc", "Basic YTpi", "Bearer a b", "Bearer\tabc", "Bearer ä", "Bearer a\u{7f}"]
    {
        assert!(bearer_from_header(Some(wrong)).is_err(), "{wrong:?}");
    }
}

#[test]
fn loopback_needs_no_tokens() {
    for listen in ["127.0.0.1:0", "127.8.9.1:8700", "[::1]:8700", "[::ffff:127.0.0.1]:8700", "localhost:8700"] {
        let bound = check_bind(listen, &AuthSettings::default());
        assert!(bound.is_ok_and(|addresses| !addresses.is_empty()), "{listen}");
    }
}

#[test]
fn an_open_door_is_refused_and_a_guarded_one_is_not() {
    let guarded = settings(vec![token("a", "t", &[Scope::Admin], "one")]);
    for listen in ["0.0.0.0:8700", "[::]:8700", "10.1.2.3:8700", "[::ffff:10.1.2.3]:80"] {
        let text = check_bind(listen, &AuthSettings::default()).unwrap_err().to_string();
        assert!(
            text.contains("RELAY__AUTH__TOKENS=") && text.contains("sha256sum") && text.contains("[auth]"),
            "{text}"
        );
        assert!(check_bind(listen, &guarded).is_ok(), "{listen}");
    }
    for listen in ["8700", "127.0.0.1", "127.0.0.1:99999", ""] {
        let text = check_bind(listen, &guarded).unwrap_err().to_string();
        assert!(text.contains("HOST:PORT"), "{text}");
    }
}

#[test]
fn the_lines_of_the_refusal_work_as_they_are_printed() {
    let text = check_bind("0.0.0.0:1", &AuthSettings::default()).unwrap_err().to_string();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("RELAY_TOKEN=") || line.contains("export ")).collect();
    assert_eq!(lines.len(), 2, "{text}");
    let script = format!("{}\nprintf '%s\\n%s' \"$RELAY_TOKEN\" \"$RELAY__AUTH__TOKENS\"", lines.join("\n"));
    let output = Command::new("sh").args(["-euc", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let output = String::from_utf8(output.stdout).unwrap();
    let (secret, setting) = output.split_once('\n').unwrap();
    assert!(secret.len() >= 32, "{secret}");

    #[derive(serde::Deserialize)]
    struct Settings {
        auth: AuthSettings,
    }
    let env = [("RELAY__AUTH__TOKENS".to_owned(), setting.to_owned())].into_iter().collect();
    let auth = load::<Settings>("", None, env, &LIST_KEYS).unwrap().auth;
    assert!(check_bind("0.0.0.0:1", &auth).is_ok());
    let identity = Authenticator::new(&auth).unwrap().authenticate(Some(secret)).unwrap();
    assert_eq!(identity.subject, "admin");
    assert!(identity.require(Scope::Admin).is_ok());
}

#[test]
fn the_toml_of_the_refusal_is_valid() {
    let text = check_bind("0.0.0.0:1", &AuthSettings::default()).unwrap_err().to_string();
    let hash = format!("{:?}", TokenHash::of("secret"));
    let toml: String = text
        .lines()
        .filter(|l| l.trim() == "[auth]" || l.trim().starts_with("tokens ="))
        .collect::<Vec<_>>()
        .join("\n");
    #[derive(serde::Deserialize)]
    struct Settings {
        auth: AuthSettings,
    }
    let auth = load::<Settings>(&toml.replace("...", &hash), None, Default::default(), &LIST_KEYS).unwrap().auth;
    assert_eq!(Authenticator::new(&auth).unwrap().authenticate(Some("secret")).unwrap().subject, "admin");
}

proptest! {
    #[test]
    fn no_header_makes_the_reader_panic(header in "\\PC{0,40}") {
        if let Ok(Some(token)) = bearer_from_header(Some(&header)) {
            prop_assert!(header.contains(token) && !token.is_empty());
        }
    }

    #[test]
    fn only_the_exact_token_opens(bearer in "[ -~]{0,30}") {
        prop_assume!(bearer != "token-of-ann" && bearer != "token-of-bob");
        prop_assert!(two().authenticate(Some(&bearer)).is_err());
    }

    #[test]
    fn a_claim_grants_only_what_it_names(claim in "([a-z:]{1,12} ){0,6}(jobs:read|jobs:write)?") {
        let set = ScopeSet::from_claim(&claim);
        for scope in set.iter() {
            prop_assert!(claim.split(' ').any(|name| name == scope.name()));
        }
    }
}
