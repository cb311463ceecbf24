//! `[[front.route]]`: which requests go to which service, and how.

use plimsoll_front::config::ReplayPolicy;
use toml::Spanned;

use crate::config::model::Route;
use crate::config::section::{Section, WrongWord};
use crate::config::suggest::nearest;

const REPLAYS: [(&str, ReplayPolicy); 3] =
    [("safe", ReplayPolicy::Safe), ("always", ReplayPolicy::Always), ("never", ReplayPolicy::Never)];
const REPLAY_HINT: &str =
    "write \"safe\" (the default), \"always\" where the service can bear a request twice, or \"never\"";

pub(super) fn read(section: &Section<'_>, services: &[&str]) -> Option<Route> {
    let host = section.text("host", "example.org");
    let path = section.text("path", "/api");
    let service = section.text("service", "reports");
    if let Some(path) = path.as_ref().filter(|path| !path.get_ref().starts_with('/')) {
        section.error(path.span(), "path does not begin with a slash", "write path = \"/api\"");
    }
    let service = match service {
        Some(service) => known_service(section, &service, services)?,
        None => only_service(section, services)?,
    };
    let replay =
        section.choice("replay", &REPLAYS, WrongWord::IsNo { what: "replay policy", hint: REPLAY_HINT });
    Some(Route {
        host: host.map(|host| host.into_inner().to_ascii_lowercase()),
        path: path.map(Spanned::into_inner),
        service,
        replay: replay.unwrap_or(ReplayPolicy::Safe),
        timeout: section.positive_duration("timeout", "60s").map(Spanned::into_inner),
    })
}

fn known_service(section: &Section<'_>, service: &Spanned<String>, services: &[&str]) -> Option<String> {
    let name = service.get_ref();
    if services.contains(&name.as_str()) {
        return Some(name.clone());
    }
    let near = nearest(name, services.iter().copied());
    let hint = near.map_or_else(
        || format!("services are: {}", services.join(", ")),
        |near| format!("did you mean \"{near}\"?"),
    );
    section.error(service.span(), format!("there is no service \"{name}\""), &hint);
    None
}

/// With one service, a route need not name it.
fn only_service(section: &Section<'_>, services: &[&str]) -> Option<String> {
    if let [only] = services {
        return Some((*only).to_owned());
    }
    if !section.has("service") {
        let hint = format!("write service = \"{}\"", services.first().unwrap_or(&"reports"));
        section.error(section.span.clone(), "the route does not say which service it leads to", &hint);
    }
    None
}
