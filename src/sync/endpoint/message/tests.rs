use super::*;

fn request(target: &str, headers: &[(&str, &str)]) -> Request {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request::new(Method::GET, target, headers, Bytes::new())
}

#[test]
fn a_token_is_taken_from_where_consul_looks_and_goes_nowhere_else() {
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>);
    let cases: &[Case<'_>] = &[
        ("/v1/kv/a?token=q&raw", &[("X-Consul-Token", "h")], Some("q")),
        ("/v1/kv/a?raw", &[("X-Consul-Token", "h"), ("Authorization", "Bearer b")], Some("h")),
        ("/v1/kv/a?raw", &[("Authorization", "bearer b")], Some("b")),
        ("/v1/kv/a?raw&token=", &[], None),
        ("/v1/kv/a?raw", &[], None),
    ];
    for (target, headers, token) in cases {
        let request = request(target, headers);
        assert_eq!(request.token.as_ref().map(SecretText::expose), *token, "{target}");
        assert_eq!(request.target, "/v1/kv/a?raw");
        assert_eq!(request.headers, []);
        assert!(!format!("{request:?}").contains("token"));
    }
}

#[test]
fn what_is_no_bearer_token_goes_on() {
    assert_eq!(request("/", &[("Authorization", "Basic eA==")]).header("authorization"), Some("Basic eA=="));
    assert_eq!(request("/", &[("Connection", "close"), ("Host", "x")]).headers, []);
}

#[test]
fn escapes_are_decoded_once() {
    let of = |target: &str| {
        let request = request(target, &[]);
        (request.path, request.query)
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(of("/v1/kv/a%2Fb%20c+d").0, "/v1/kv/a/b c+d");
    assert_eq!(of("/v1/kv/%252F").0, "/v1/kv/%2F");
    assert_eq!(of("/v1/kv/%zz%4").0, "/v1/kv/%zz%4");
    assert_eq!(of("/v1/kv/a/").0, "/v1/kv/a/");
    assert_eq!(
        of("/?a=1+2&b&c=%26&&a=3").1,
        [pair("a", "1 2"), pair("b", ""), pair("c", "&"), pair("a", "3")]
    );
}

#[test]
fn a_parameter_is_left_out() {
    let request = request("/v1/kv/a?raw&index=7&wait=1s&index=9", &[]).without_param("index");
    assert_eq!((request.target.as_str(), request.param("index")), ("/v1/kv/a?raw&wait=1s", None));
    assert_eq!(request.without_param("raw").without_param("wait").target, "/v1/kv/a");
}

#[test]
fn a_semicolon_in_the_query_is_seen_behind_a_token_too() {
    for target in ["/v1/kv/a?raw;keys", "/v1/kv/a?token=t;recurse", "/v1/kv/a?;"] {
        assert!(request(target, &[]).has_semicolon, "{target}");
    }
    for target in ["/v1/kv/a;b", "/v1/kv/a?separator=%3B"] {
        assert!(!request(target, &[]).has_semicolon, "{target}");
    }
}
