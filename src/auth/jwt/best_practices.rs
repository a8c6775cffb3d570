//! RFC 8725, section by section: the tokens that it warns of. Where possible they are signed by a key of the set, so
//! that nothing else refuses them.

use super::*;

fn verify(token: &str) -> Result<String, &'static str> {
    let keys = KeySet::parse(own_set("").as_bytes()).unwrap();
    keys.verify(token, &expected(), NOW)
}

fn refused_headers(headers: &[&str]) {
    for header in headers {
        assert!(verify(&signed(header, &claims(""))).is_err(), "{header}");
    }
}

fn refused_claims(changes: &[&str]) {
    for change in changes {
        assert!(
            verify(&signed(HEADER, &claims(change))).is_err(),
            "{change}"
        );
    }
}

#[test]
fn section_3_1_algorithm_none() {
    refused_headers(&[
        r#"{"alg":"none"}"#,
        r#"{"alg":"none","kid":"own"}"#,
        r#"{"alg":"NONE","kid":"own"}"#,
        r#"{"alg":"","kid":"own"}"#,
        r#"{"kid":"own"}"#,
    ]);
    let header = base64url_encode(br#"{"alg":"none"}"#);
    let claims = base64url_encode(claims("").as_bytes());
    for signature in ["", "AAAA"] {
        assert!(verify(&format!("{header}.{claims}.{signature}")).is_err());
    }
}

#[test]
fn section_3_1_hmac_with_the_public_key() {
    let header = r#"{"alg":"HS256","kid":"own"}"#;
    let body = [header, &claims("")].map(|part| base64url_encode(part.as_bytes()));
    let body = body.join(".");
    let set = own_set("");
    let public = own().public_key().as_ref().to_vec();
    for secret in [public, set.into_bytes(), Vec::new()] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let tag = ring::hmac::sign(&key, body.as_bytes());
        let token = format!("{body}.{}", base64url_encode(tag.as_ref()));
        assert!(verify(&token).is_err());
    }
}

#[test]
fn section_3_1_another_algorithm_than_the_key_is_for() {
    refused_headers(&[
        r#"{"alg":"RS256","kid":"own"}"#,
        r#"{"alg":"ES256","kid":"own"}"#,
        r#"{"alg":"eddsa","kid":"own"}"#,
        r#"{"alg":["EdDSA"],"kid":"own"}"#,
    ]);
}

#[test]
fn section_3_3_signatures_that_are_missing_cut_or_doubled() {
    let good = signed(HEADER, &claims(""));
    assert!(verify(&good).is_ok());
    let (body, signature) = good.rsplit_once('.').unwrap();
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        format!("{body}."),
        body.to_owned(),
        format!("{body}.{}", &signature[4..]),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!("{good}="),
        format!(" {good}"),
        good.replace('.', ".."),
    ] {
        assert!(verify(&token).is_err(), "{token}");
    }
}

#[test]
fn section_3_5_weak_keys() {
    assert!(KeySet::parse(vectors::SMALL.as_bytes()).is_err());
}

#[test]
fn section_3_7_only_utf_8() {
    let latin = [
        br#"{"email":""#.as_slice(),
        b"\xe9",
        br#"@x","exp":1000003600}"#,
    ]
    .concat();
    let body = [HEADER.as_bytes(), &latin].map(base64url_encode).join(".");
    let signature = base64url_encode(own().sign(body.as_bytes()).as_ref());
    assert!(verify(&format!("{body}.{signature}")).is_err());
}

#[test]
fn section_3_8_wrong_issuer() {
    refused_claims(&[r#""iss":"https://id.example.com""#, r#""iss":null"#]);
}

#[test]
fn section_3_9_wrong_audience() {
    refused_claims(&[r#""aud":"web""#, r#""aud":["web"]"#, r#""aud":[["mail"]]"#]);
}

/// A token cannot bring its own key.
#[test]
fn section_3_10_keys_of_its_own() {
    let own_key = |seed| Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let theirs = own_key(8);
    let x = base64url_encode(theirs.public_key().as_ref());
    for more in [
        format!(r#""jwk":{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#),
        r#""jku":"https://evil.example/keys""#.to_owned(),
        r#""x5u":"https://evil.example/cert""#.to_owned(),
        r#""kid":"../../own""#.to_owned(),
        r#""kid":"own' OR 'a'='a""#.to_owned(),
    ] {
        let header = format!(r#"{{"alg":"EdDSA",{more}}}"#);
        let body = [header, claims("")].map(|part| base64url_encode(part.as_bytes()));
        let body = body.join(".");
        let signature = base64url_encode(theirs.sign(body.as_bytes()).as_ref());
        assert!(verify(&format!("{body}.{signature}")).is_err(), "{more}");
    }
    refused_headers(&[
        r#"{"alg":"EdDSA","kid":"other"}"#,
        r#"{"alg":"EdDSA","kid":7}"#,
    ]);
    assert!(verify(&signed(r#"{"alg":"EdDSA"}"#, &claims(""))).is_ok());
}

#[test]
fn section_3_11_another_kind_of_token() {
    refused_headers(&[
        r#"{"alg":"EdDSA","typ":"secevent+jwt"}"#,
        r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#,
        r#"["EdDSA"]"#,
        "",
    ]);
}

#[test]
fn nested_tokens() {
    refused_headers(&[r#"{"alg":"EdDSA","cty":"JWT"}"#]);
    assert!(verify(&signed(HEADER, &signed(HEADER, &claims("")))).is_err());
}

#[test]
fn expired_and_not_yet_valid() {
    refused_claims(&[r#""exp":1000000040"#, r#""nbf":1000000161"#]);
}

#[test]
fn huge_and_deep() {
    let huge = format!(r#""x":"{}""#, "x".repeat(MAX_TOKEN));
    assert!(verify(&signed(HEADER, &claims(&huge))).is_err());
    let deep = format!("{}1{}", "[".repeat(4_000), "]".repeat(4_000));
    assert!(verify(&signed(HEADER, &deep)).is_err());
    let inside = format!(r#""x":{deep}"#);
    assert!(verify(&signed(HEADER, &claims(&inside))).is_err());
}

#[test]
fn duplicate_members() {
    refused_headers(&[r#"{"alg":"EdDSA","alg":"EdDSA"}"#]);
    refused_claims(&[r#""sub":"1","sub":"1""#, r#""x":{"y":1,"y":1}"#]);
}
