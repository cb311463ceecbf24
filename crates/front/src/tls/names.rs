//! Host names: one spelling, and what a certificate's name covers.

/// The one spelling of a host: lower case, no final dot, no brackets around an IPv6 address.
pub(crate) fn normal(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// The wildcard that would cover `host`: its first label replaced. `None` where there is nothing to replace, since a
/// wildcard covers one label, never none, and never an address.
pub(super) fn wildcard_of(host: &str) -> Option<String> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    let (first, rest) = host.split_once('.')?;
    (!first.is_empty() && first != "*" && !rest.is_empty()).then(|| format!("*.{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        assert_eq!(normal("WWW.Example.ORG."), "www.example.org");
        assert_eq!(normal("[::1]"), "::1");
    }

    #[test]
    fn a_wildcard_stands_for_exactly_one_label() {
        assert_eq!(wildcard_of("www.example.org").as_deref(), Some("*.example.org"));
        assert_eq!(wildcard_of("a.www.example.org").as_deref(), Some("*.www.example.org"));
        assert_eq!(wildcard_of("localhost"), None);
        assert_eq!(wildcard_of(".example.org"), None);
        assert_eq!(wildcard_of("*.example.org"), None);
        assert_eq!(wildcard_of("127.0.0.1"), None);
    }
}
