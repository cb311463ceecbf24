//! Where a key belongs that was written in the wrong table.

const SERVICE: [&str; 11] = [
    "command",
    "cwd",
    "env",
    "env_file",
    "user",
    "group",
    "replicas",
    "tasks",
    "port_env",
    "address",
    "no_new_privs",
];
const TABLES: [(&str, &[&str]); 5] = [
    ("memory", &["soft", "hard", "recycle", "for", "runtime", "group_kill"]),
    ("descriptors", &["limit"]),
    ("recovery", &["handover", "stop_signal", "drain", "stop_grace", "backoff_max", "recycles_per_hour"]),
    ("health", &["http", "tcp", "interval", "timeout", "retries", "start_period", "hang"]),
    ("logs", &["size", "keep"]),
];

/// What to say of `key`, found in the table `path`, when another table of the service knows it.
pub(super) fn home_of(path: &str, key: &str) -> Option<String> {
    let key = key.to_lowercase().replace('-', "_");
    let key = key.as_str();
    let mut parts = path.split('.');
    let service = match (parts.next(), parts.next()) {
        (Some("service"), Some(name)) => name,
        (Some(""), None) => "NAME",
        _ => return None,
    };
    let table = TABLES.iter().find(|(_, keys)| keys.contains(&key)).map(|(table, _)| format!(".{table}"));
    let own = SERVICE.contains(&key).then(String::new);
    let home = table.or(own).map(|table| format!("service.{service}{table}"))?;
    (home != path).then(|| format!("`{key}` belongs in [{home}]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_wrong_table_is_sent_home() {
        assert_eq!(home_of("service.x", "soft").as_deref(), Some("`soft` belongs in [service.x.memory]"));
        assert_eq!(
            home_of("service.x.memory", "drain").as_deref(),
            Some("`drain` belongs in [service.x.recovery]")
        );
        assert_eq!(home_of("", "command").as_deref(), Some("`command` belongs in [service.NAME]"));
        assert_eq!(home_of("front", "soft"), None);
        assert_eq!(home_of("service.x", "colour"), None);
    }
}
