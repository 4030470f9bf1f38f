//! As much of HTTP/1.1 (RFC 9112) as a scraper needs: the head of a request, and the heads of our answers.

/// Longest head of a request in bytes.
pub const LONGEST: usize = 8 << 10;

/// What a scraper asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// It understands OpenMetrics.
    pub openmetrics: bool,
    /// It wants to know only whether there is an answer.
    pub head_only: bool,
    /// It understands chunks (HTTP/1.1 does).
    pub chunked: bool,
}

/// What is said in return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The metrics follow.
    Metrics {
        /// Their media type.
        kind: &'static str,
        /// They come in chunks; otherwise until the end of the connection.
        chunked: bool,
    },
    /// That is no request.
    Bad,
    /// There is nothing but /metrics.
    NotFound,
    /// Nothing can be changed here.
    NotAllowed,
    /// Too many ask, or the manager is stopping.
    Busy,
}

impl Request {
    /// Reads a request; `None` when its head has not come wholly yet.
    pub fn parse(bytes: &[u8]) -> Option<Result<Request, Answer>> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        Some(match std::str::from_utf8(&bytes[..end]) {
            Ok(head) => Request::of_head(head),
            Err(_) => Err(Answer::Bad),
        })
    }

    fn of_head(head: &str) -> Result<Request, Answer> {
        let mut lines = head.split("\r\n");
        let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, version] = words[..] else {
            return Err(Answer::Bad);
        };
        let chunked = match version {
            "HTTP/1.1" => true,
            "HTTP/1.0" => false,
            _ => return Err(Answer::Bad),
        };
        let head_only = match method {
            "GET" => false,
            "HEAD" => true,
            _ => return Err(Answer::NotAllowed),
        };
        if target.split('?').next() != Some("/metrics") {
            return Err(Answer::NotFound);
        }
        let mut openmetrics = false;
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(Answer::Bad)?;
            if name.eq_ignore_ascii_case("accept") {
                openmetrics |= value.contains("application/openmetrics-text");
            }
        }
        Ok(Request {
            openmetrics,
            head_only,
            chunked,
        })
    }
}

impl Answer {
    /// The answer's head, with the body of those that have nothing else to say.
    pub fn text(&self) -> String {
        let (status, body) = match self {
            Answer::Metrics { kind, chunked } => {
                let chunks = match chunked {
                    true => "Transfer-Encoding: chunked\r\n",
                    false => "",
                };
                return format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{chunks}Connection: close\r\n\r\n"
                );
            }
            Answer::Bad => ("400 Bad Request", "this is no HTTP request\n"),
            Answer::NotFound => ("404 Not Found", "there is only /metrics\n"),
            Answer::NotAllowed => ("405 Method Not Allowed", "only GET and HEAD\n"),
            Answer::Busy => ("503 Service Unavailable", "try again later\n"),
        };
        let allow = match self {
            Answer::NotAllowed => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_its_head_says() {
        let plain = Request {
            openmetrics: false,
            head_only: false,
            chunked: true,
        };
        let cases: &[(&str, Option<Result<Request, Answer>>)] = &[
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Some(Ok(plain))),
            (
                "GET /metrics?x=1 HTTP/1.1\r\naccept: text/plain, application/openmetrics-text;version=1.0.0\r\n\r\n",
                Some(Ok(Request {
                    openmetrics: true,
                    ..plain
                })),
            ),
            (
                "HEAD /metrics HTTP/1.0\r\n\r\n",
                Some(Ok(Request {
                    head_only: true,
                    chunked: false,
                    ..plain
                })),
            ),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n", None),
            ("", None),
            ("GET / HTTP/1.1\r\n\r\n", Some(Err(Answer::NotFound))),
            (
                "POST /metrics HTTP/1.1\r\n\r\n",
                Some(Err(Answer::NotAllowed)),
            ),
            ("GET /metrics HTTP/2\r\n\r\n", Some(Err(Answer::Bad))),
            ("GET /metrics\r\n\r\n", Some(Err(Answer::Bad))),
            (
                "GET /metrics HTTP/1.1\r\nno header\r\n\r\n",
                Some(Err(Answer::Bad)),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(&Request::parse(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(Request::parse(b"\xff\r\n\r\n"), Some(Err(Answer::Bad)));
    }

    #[test]
    fn an_answer_with_a_body_says_how_long_it_is() {
        for answer in [
            Answer::Bad,
            Answer::NotFound,
            Answer::NotAllowed,
            Answer::Busy,
        ] {
            let text = answer.text();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("Content-Length: {}", body.len())),
                "{text}"
            );
        }
    }
}
