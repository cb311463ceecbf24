//! What the service has carried out, asked after the load: the titles of all reports that it stored.

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const PAGE: usize = 200;

/// Where they are.
#[derive(Debug)]
pub(super) enum Store {
    /// The sample service keeps them in its database, and lists them by page.
    Pages(SocketAddr),
    /// Node writes each to this file as it stores it.
    Lines(PathBuf),
}

/// How often each title is there.
pub(super) type Titles = HashMap<String, u64>;

#[derive(Debug, Deserialize)]
struct Report {
    id: i64,
    title: String,
}

#[derive(Debug, Deserialize)]
struct Page {
    reports: Vec<Report>,
}

impl Store {
    pub(super) fn titles(&self) -> Result<Titles> {
        let titles = match self {
            Self::Pages(address) => titles_by_page(*address)?,
            Self::Lines(path) => {
                let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
                // A line that was cut off when its writer died has no answer either.
                text.lines()
                    .filter_map(|line| serde_json::from_str::<Report>(line).ok())
                    .map(|it| it.title)
                    .collect()
            }
        };
        Ok(count(titles))
    }
}

fn count(titles: Vec<String>) -> Titles {
    let mut counted = Titles::new();
    for title in titles {
        *counted.entry(title).or_default() += 1;
    }
    counted
}

fn titles_by_page(address: SocketAddr) -> Result<Vec<String>> {
    let (mut titles, mut before) = (Vec::new(), i64::MAX);
    loop {
        let target = format!("/reports?limit={PAGE}&before={before}");
        let (_, body) = ask(address, "GET", &target)?;
        let page: Page =
            serde_json::from_str(&body).map_err(|error| Error::Check(format!("GET {target}: {error}")))?;
        let Some(last) = page.reports.last() else { return Ok(titles) };
        before = last.id;
        titles.extend(page.reports.into_iter().map(|report| report.title));
    }
}

/// One request to the service itself, past every front: the status and the body.
pub(super) fn ask(address: SocketAddr, method: &str, target: &str) -> Result<(u16, String)> {
    let failed = |what: String| Error::Check(format!("{method} {target}: {what}"));
    let answer = exchange(address, method, target).map_err(|error| failed(error.to_string()))?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| failed(format!("no answer: {answer}")))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| failed(head.to_owned()))?, body.to_owned()))
}

fn exchange(address: SocketAddr, method: &str, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_by_title_and_half_a_line_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reports");
        let line = |id, title| format!("{{\"id\":{id},\"title\":\"{title}\",\"body\":\"\"}}\n");
        fs::write(&path, line(1, "a") + &line(2, "b") + &line(1, "a") + "{\"id\":3,\"ti").unwrap();
        let titles = Store::Lines(path).titles().unwrap();
        assert_eq!((titles.len(), titles["a"], titles["b"]), (2, 2, 1));
    }
}
