//! ApiVersions v0-v4. v3: flexible, client software name. v4: features from version 0 on.

use net::error_code::ErrorCode;
use net::messages::api_versions::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse};

use super::{Reply, Request, SERVED, Served, Unanswerable};

/// The first version that names the client's software.
const SOFTWARE_FROM: i16 = 3;

pub fn handle(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let body: ApiVersionsRequest = request.decode()?;
    let named = is_name(&body.client_software_name) && is_name(&body.client_software_version);
    if request.version >= SOFTWARE_FROM && !named {
        let response =
            ApiVersionsResponse { error_code: ErrorCode::InvalidRequest as i16, ..Default::default() };
        return request.answer(&response);
    }
    request.answer(&ApiVersionsResponse {
        api_keys: SERVED.iter().map(version_of).collect(),
        ..Default::default()
    })
}

/// KIP-511: the client does not know which version it may use, so the answer is in version 0 and says just that.
pub fn refuse_version(request: &Request<'_>) -> Result<Reply, Unanswerable> {
    let own = SERVED.iter().filter(|served| served.key == net::api::ApiKey::ApiVersions);
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion as i16,
        api_keys: own.map(version_of).collect(),
        ..Default::default()
    };
    request.answer_in(&response, 0)
}

fn version_of(served: &Served) -> ApiVersion {
    ApiVersion {
        api_key: served.key as i16,
        min_version: served.advertised_from.min(*served.versions.start()),
        max_version: *served.versions.end(),
    }
}

/// Alphanumeric at both ends, `-` and `.` inside.
fn is_name(text: &str) -> bool {
    let outer = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    outer(text.as_bytes().first()) && outer(text.as_bytes().last()) && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names() {
        let cases = [
            ("apache-kafka-java", true),
            ("4.3.1", true),
            ("a", true),
            ("", false),
            ("-a", false),
            ("a.", false),
            ("a b", false),
            ("é", false),
        ];
        for (text, expect) in cases {
            assert_eq!(is_name(text), expect, "{text:?}");
        }
    }

    #[test]
    fn no_key_is_listed_twice() {
        for (index, served) in SERVED.iter().enumerate() {
            assert!(SERVED[index + 1..].iter().all(|other| other.key != served.key));
        }
    }
}
