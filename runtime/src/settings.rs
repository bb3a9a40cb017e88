//! Settings of a daemon: defaults in one TOML file, then the operator's file, then the environment. Later wins.
//!
//! The variable of key `kafka.brokers` is `RELAY__KAFKA__BROKERS`: prefix `RELAY`, two underscores between the parts.
//! Names with a single underscore after `RELAY` (`RELAY_URL`, `RELAY_TOKEN`) belong to the command-line client and are
//! no settings. Put `#[serde(deny_unknown_fields)]` on every settings struct: a mistyped key must stop the start.

use std::path::{Path, PathBuf};

pub use config::Map;
use config::{Config, ConfigError, Environment, File, FileFormat, Value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use self::variables::Variables;

mod variables;

pub use self::variables::process_env;

/// Why a daemon's settings cannot be used. The text says what to correct, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file as it was given.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is not TOML.
    #[error("the configuration file {} is not valid TOML: {reason}", path.display())]
    NotToml {
        /// The file as it was given.
        path: PathBuf,
        /// The parser's words, with line and column.
        reason: String,
    },
    /// An environment variable cannot be a setting.
    #[error("environment variable {name}: {problem}")]
    Variable {
        /// The variable's whole name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A key is unknown, or its value does not fit.
    #[error("setting `{key}` (from {origin}): {problem}")]
    Key {
        /// The whole key, with dots.
        key: String,
        /// The variable, the file, or the built-in defaults.
        origin: String,
        /// What is wrong, with the value.
        problem: String,
    },
    /// A key that has no default is not set anywhere.
    #[error("setting `{key}` is missing: set it in the configuration file or as {variable}")]
    Missing {
        /// The whole key, with dots.
        key: String,
        /// The environment variable that sets it.
        variable: String,
    },
    /// The built-in defaults are broken: a fault of the program, not of its operator.
    #[error("the built-in defaults are not usable: {0}")]
    Defaults(String),
}

/// Reads `T` from `defaults_toml`, then `file`, then the `RELAY__…` variables in `env`; later wins, key by key (a list
/// replaces a list as a whole). Pass [`process_env`] as `env`.
///
/// `lists` names the keys whose variable holds a comma list (`backends.static`): blanks around an item are dropped,
/// empty items too, so an empty value is the empty list. Any other variable is taken as text and read as what `T` asks
/// for: `007` stays `007` in a string and becomes 7 in a number. For that reason `T` must not use serde's `flatten` or
/// `untagged`, which ask for no type.
///
/// # Errors
/// [`SettingsError`]: an unreadable file, an unknown key, a value of the wrong type, a missing key.
pub fn load<T: DeserializeOwned>(
    defaults_toml: &str,
    file: Option<&Path>,
    env: Map<String, String>,
    lists: &[&str],
) -> Result<T, SettingsError> {
    let layers = Layers::read(defaults_toml, file, env, lists)?;
    let merged = layers.merge()?;
    merged.clone().try_deserialize().map_err(|error| layers.explain(error, &merged))
}

/// Reads `Option<String>` so that an empty text means `None`: with a variable, nothing else can unset a default.
/// Use as `#[serde(default, deserialize_with = "relay_runtime::settings::empty_is_none")]`.
///
/// # Errors
/// The value is not a text.
pub fn empty_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty()))
}

/// The three sources, kept apart so that an error can name the one that holds the key.
struct Layers {
    defaults: Config,
    file: Option<(PathBuf, Config)>,
    variables: Variables,
}

impl Layers {
    fn read(
        defaults: &str,
        path: Option<&Path>,
        env: Map<String, String>,
        lists: &[&str],
    ) -> Result<Self, SettingsError> {
        let defaults = parse(defaults).map_err(|error| SettingsError::Defaults(error.to_string()))?;
        let file = path.map(read_file).transpose()?;
        Ok(Self { defaults, file, variables: Variables::read(env, lists)? })
    }

    fn merge(&self) -> Result<Config, SettingsError> {
        let mut builder = Config::builder().add_source(self.defaults.clone());
        if let Some((_, file)) = &self.file {
            builder = builder.add_source(file.clone());
        }
        // `try_parsing` stays off: it would turn a name such as 007 or a hash such as 12e4 into a number for good.
        let texts = Environment::with_prefix("RELAY").prefix_separator("__").separator("__");
        builder = builder.add_source(texts.source(Some(self.variables.texts.clone())));
        for (key, items) in &self.variables.lists {
            builder = builder.set_override(key, items.clone()).map_err(|error| self.unlocated(&error))?;
        }
        builder.build().map_err(|error| self.unlocated(&error))
    }

    /// Turns the `config` crate's error into one that names key, value and origin.
    fn explain(&self, error: ConfigError, merged: &Config) -> SettingsError {
        match error {
            ConfigError::NotFound(key) => SettingsError::Missing { variable: variables::name_of(&key), key },
            ConfigError::Type { unexpected, expected, key, .. } => {
                self.at(key.unwrap_or_default(), format!("expected {expected}, found {unexpected}"))
            }
            ConfigError::At { error, key, .. } => {
                let parent = key.unwrap_or_default();
                let problem = error.to_string();
                match unknown_field(&problem) {
                    Some(field) if parent.is_empty() => self.at(field.to_owned(), unknown_words(&problem)),
                    Some(field) => self.at(format!("{parent}.{field}"), unknown_words(&problem)),
                    None => self.at_with_value(parent, problem, merged),
                }
            }
            ConfigError::Message(problem) => match unknown_field(&problem) {
                Some(field) => self.at(field.to_owned(), unknown_words(&problem)),
                None => self.at(String::new(), problem),
            },
            other => self.unlocated(&other),
        }
    }

    fn at(&self, key: String, problem: String) -> SettingsError {
        SettingsError::Key { origin: self.origin(&key), key, problem }
    }

    /// Adds the value when the problem does not show it, unless the key says that it may be a secret (a token pasted
    /// where its hash belongs).
    fn at_with_value(&self, key: String, problem: String, merged: &Config) -> SettingsError {
        let secret = ["secret", "password", "token", "key"].iter().any(|word| key.contains(word));
        let value = merged.get::<Value>(&key).ok().and_then(|value| value.into_string().ok());
        match value {
            Some(value) if !secret && !problem.contains(&value) => {
                self.at(key, format!("{problem} (the value is {value:?})"))
            }
            _ => self.at(key, problem),
        }
    }

    /// Where the value of `key` comes from, in words.
    fn origin(&self, key: &str) -> String {
        if let Some(name) = self.variables.holding(key) {
            return format!("environment variable {name}");
        }
        match &self.file {
            Some((path, file)) if !key.is_empty() && file.get::<Value>(key).is_ok() => {
                format!("file {}", path.display())
            }
            _ if self.defaults.get::<Value>(key).is_ok() => "the built-in defaults".to_owned(),
            Some((path, _)) => format!("file {}", path.display()),
            None => "the built-in defaults".to_owned(),
        }
    }

    fn unlocated(&self, error: &ConfigError) -> SettingsError {
        self.at(String::new(), error.to_string())
    }
}

fn parse(toml: &str) -> Result<Config, ConfigError> {
    Config::builder().add_source(File::from_str(toml, FileFormat::Toml)).build()
}

fn read_file(path: &Path) -> Result<(PathBuf, Config), SettingsError> {
    let path = path.to_path_buf();
    match std::fs::read_to_string(&path) {
        Err(source) => Err(SettingsError::Unreadable { path, source }),
        Ok(text) => match parse(&text) {
            Ok(config) => Ok((path, config)),
            Err(error) => Err(SettingsError::NotToml { path, reason: error.to_string() }),
        },
    }
}

/// The field's name in serde's "unknown field `x`, expected …".
fn unknown_field(problem: &str) -> Option<&str> {
    problem.strip_prefix("unknown field `")?.split('`').next()
}

/// serde's message without the field's name, which the error shows as the whole key.
fn unknown_words(problem: &str) -> String {
    match problem.split_once(", ") {
        Some((_, expected)) => format!("unknown key, {expected}"),
        None => "unknown key".to_owned(),
    }
}
