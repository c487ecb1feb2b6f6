//! As much of HTTP/1.1 as the admin listener speaks: the head of a GET or HEAD request, and whole responses that close
//! the connection. Pure.

/// More are refused.
const HEADERS_MAX: usize = 64;

/// A request that may be answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Without the query.
    pub path: String,
    pub head_only: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    content_type: &'static str,
    body: String,
    has_body: bool,
}

/// The request that these bytes begin with; `None` while it is not whole.
///
/// # Errors
/// What to answer to bytes that are no request, or to one that is not served.
pub fn parse(bytes: &[u8]) -> Result<Option<Request>, Response> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Response::plain(431, "the request has too many headers\n"));
        }
        Err(error) => return Err(Response::plain(400, &format!("this is no HTTP request: {error}\n"))),
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        Some(_) | None => return Err(Response::plain(405, "only GET and HEAD are served\n")),
    };
    let target = request.path.unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    Ok(Some(Request { path, head_only }))
}

impl Response {
    pub fn new(status: u16, content_type: &'static str, body: String) -> Response {
        Response { status, content_type, body, has_body: true }
    }

    pub fn plain(status: u16, text: &str) -> Response {
        Response::new(status, "text/plain; charset=utf-8", text.to_owned())
    }

    /// The answer to HEAD: as to GET, but for the body itself.
    pub fn without_body(self) -> Response {
        Response { has_body: false, ..self }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        let allow = if self.status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
        let mut out = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{allow}Connection: close\r\n\r\n",
            self.status,
            reason(self.status),
            self.content_type,
            self.body.len()
        );
        if self.has_body {
            out += &self.body;
        }
        out.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The path, whether only the head is wanted, or the status of the refusal; `None` for more to come.
    fn check(bytes: &[u8], expect: Option<Result<(&str, bool), u16>>) {
        let seen = match parse(bytes) {
            Ok(None) => None,
            Ok(Some(request)) => Some(Ok((request.path, request.head_only))),
            Err(response) => Some(Err(response.status)),
        };
        let expect = expect.map(|parsed| parsed.map(|(path, head_only)| (path.to_owned(), head_only)));
        assert_eq!(seen, expect, "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn requests_are_cut_out_of_anything() {
        check(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Some(Ok(("/metrics", false))));
        check(b"HEAD /healthz?verbose HTTP/1.0\r\n\r\n", Some(Ok(("/healthz", true))));
        check(b"GET /metrics HTTP/1.1\r\nHost: x\r\n", None);
        check(b"", None);
        check(b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\n", Some(Err(405)));
        check(b"GET /metrics HTTP/2.0\r\n\r\n", Some(Err(400)));
        check(b"\x00\x00\x00\x12\x00\x12\x00\x04", Some(Err(400)));
        check(b"GET /a b HTTP/1.1\r\n\r\n", Some(Err(400)));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        check(many.as_bytes(), Some(Err(431)));
    }

    #[test]
    fn responses_say_their_length_and_close() {
        let bytes = Response::plain(405, "no\n").into_bytes();
        let text = String::from_utf8(bytes).expect("it is text");
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{text}");
        assert!(text.contains("\r\nContent-Length: 3\r\n") && text.contains("\r\nAllow: GET, HEAD\r\n"));
        assert!(text.ends_with("\r\nConnection: close\r\n\r\nno\n"), "{text}");
        let head = Response::plain(200, "body\n").without_body().into_bytes();
        assert!(head.ends_with(b"\r\n\r\n"));
    }
}
