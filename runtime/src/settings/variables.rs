//! The environment's part of the settings: which variables count, which key each sets, which are lists.

use config::Map;

use super::SettingsError;

/// What a variable's name must start with, in any case of letters.
const PREFIX: &str = "RELAY__";

/// The variables that are settings, sorted into texts and lists.
pub(super) struct Variables {
    /// Whole variable name → text.
    pub(super) texts: Map<String, String>,
    /// Key → items.
    pub(super) lists: Vec<(String, Vec<String>)>,
    /// Key → whole variable name, sorted by key.
    names: Vec<(String, String)>,
}

impl Variables {
    /// Takes the `RELAY__…` variables out of `env`; others are ignored.
    pub(super) fn read(env: Map<String, String>, lists: &[&str]) -> Result<Self, SettingsError> {
        let mut found = Self { texts: Map::new(), lists: Vec::new(), names: Vec::new() };
        for (name, value) in env {
            if !is_setting(&name) {
                continue;
            }
            let key = key_of(&name)?;
            if lists.contains(&key.as_str()) {
                found.lists.push((key.clone(), items(&value)));
            } else {
                found.texts.insert(name.clone(), value);
            }
            found.names.push((key, name));
        }
        found.names.sort();
        found.refuse_conflicts()?;
        Ok(found)
    }

    /// The name of the variable that sets `key`, a table above it, a list around it, or something below it.
    pub(super) fn holding(&self, key: &str) -> Option<&str> {
        let plain = key.split('[').next().unwrap_or(key);
        let exact = self.names.iter().find(|(known, _)| known == plain);
        let related = || self.names.iter().find(|(known, _)| is_below(plain, known) || is_below(known, plain));
        exact.or_else(related).map(|(_, name)| name.as_str())
    }

    /// `RELAY__A` beside `RELAY__A__B`, or two names that differ in case only: which one wins would be chance.
    fn refuse_conflicts(&self) -> Result<(), SettingsError> {
        for (at, (key, name)) in self.names.iter().enumerate() {
            let clash = self.names[at + 1..].iter().find(|(other, _)| other == key || is_below(other, key));
            if let Some((_, other)) = clash {
                let problem = format!("contradicts {other}; set one of the two");
                return Err(SettingsError::Variable { name: name.clone(), problem });
            }
        }
        Ok(())
    }
}

/// The process's environment as [`super::load`] wants it: only variables that start with `RELAY__`.
///
/// # Errors
/// [`SettingsError::Variable`] when such a variable is not UTF-8.
pub fn process_env() -> Result<Map<String, String>, SettingsError> {
    let mut env = Map::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        if !is_setting(&name) {
            continue;
        }
        let Ok(value) = value.into_string() else {
            return Err(SettingsError::Variable { name, problem: "the value is not UTF-8".to_owned() });
        };
        env.insert(name, value);
    }
    Ok(env)
}

/// The variable that sets `key`.
pub(super) fn name_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

fn is_setting(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

fn key_of(name: &str) -> Result<String, SettingsError> {
    let parts: Vec<&str> = name[PREFIX.len()..].split("__").collect();
    let is_part =
        |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !parts.iter().all(is_part) {
        let problem =
            "not a setting's name: parts of letters, digits, `_` and `-`, two underscores between them".to_owned();
        return Err(SettingsError::Variable { name: name.to_owned(), problem });
    }
    Ok(parts.join(".").to_lowercase())
}

fn items(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn is_below(key: &str, above: &str) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.starts_with('.'))
}
