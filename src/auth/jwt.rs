//! JSON web tokens (RFC 7519) signed by keys of a JWK set (RFC 7517), checked as RFC 8725 asks: the key decides which
//! algorithms are allowed, no key comes from a token, and the required claims are configured. ring verifies the
//! signatures. The caller reads the file and provides the time.

use std::collections::HashMap;

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use tinyjson::JsonValue;

use super::json;
use crate::encoding::base64url_decode;

/// Maximum octets of a token: more than an AUTH line can hold.
const MAX_TOKEN: usize = 12_288;
/// Maximum keys of a set. A token without `kid` is tried with each suitable key.
const MAX_KEYS: usize = 64;
/// Accepted RSA key sizes in bits (RFC 7518 §3.3 asks for at least 2048).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
/// Tolerated clock difference in seconds.
const GRACE: f64 = 60.0;

type Object = HashMap<String, JsonValue>;

/// The claims that a token must have besides its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The `iss`, if configured.
    pub issuer: Option<String>,
    /// One of the `aud`, if configured. Otherwise a token with an audience is refused (RFC 7519 §4.1.3).
    pub audience: Option<String>,
    /// The claim that names the account.
    pub claim: String,
}

/// The signing keys of a JWK set.
pub struct KeySet {
    keys: Vec<VerifyingKey>,
}

struct VerifyingKey {
    id: Option<String>,
    /// Its only allowed algorithm, if the set names one.
    algorithm: Option<String>,
    material: Material,
}

/// A public key.
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl KeySet {
    /// Parses a JWK set (RFC 7517 §5), which says to ignore keys of other uses and types.
    ///
    /// # Errors
    /// The reason, with the key's number.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let set = json::parse(text)?;
        let keys = object(&set)
            .and_then(|set| set.get("keys"))
            .and_then(|keys| keys.get::<Vec<JsonValue>>())
            .ok_or("not a JWK set: no array \"keys\"")?;
        let mut found = Vec::new();
        for (number, key) in (1..).zip(keys) {
            let key = object(key).ok_or_else(|| format!("key {number}: not an object"))?;
            found.extend(
                VerifyingKey::read(key).map_err(|reason| format!("key {number}: {reason}"))?,
            );
        }
        if found.is_empty() {
            return Err("no key that can verify RS256, PS256, ES256, ES384 or EdDSA".to_owned());
        }
        if found.len() > MAX_KEYS {
            return Err(format!("more than {MAX_KEYS} keys"));
        }
        Ok(Self { keys: found })
    }

    /// The account that a token names, at `now` in seconds since 1970.
    ///
    /// # Errors
    /// The reason for the log; the client gets the same error for all reasons.
    pub fn verify(
        &self,
        token: &str,
        expected: &Expected,
        now: u64,
    ) -> Result<String, &'static str> {
        if token.len() > MAX_TOKEN {
            return Err("token too long");
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("not three parts");
        };
        let signed = token.get(..header.len() + 1 + claims.len());
        let signed = signed.ok_or("not three parts")?;
        let signature = base64url_decode(signature).ok_or("signature is not base64url")?;
        let header = decode(header)?;
        let header = object(&header).ok_or("header is not an object")?;
        self.verify_signature(header, signed.as_bytes(), &signature)?;
        let claims = decode(claims)?;
        let claims = object(&claims).ok_or("claims are not an object")?;
        check(claims, expected, now)
    }

    fn verify_signature(
        &self,
        header: &Object,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), &'static str> {
        // RFC 7515 §4.1.11: an unknown extension that must be understood.
        if header.contains_key("crit") {
            return Err("critical header");
        }
        // RFC 8725 §3.11: no nested tokens, and no tokens of another type.
        let token_type = header.get("typ").map(|value| string(Some(value)));
        if header.contains_key("cty") || !token_type.is_none_or(|name| name.is_some_and(is_jwt)) {
            return Err("not a token of this type");
        }
        let algorithm = string(header.get("alg")).ok_or("no algorithm")?;
        let id = match header.get("kid") {
            None => None,
            Some(id) => Some(string(Some(id)).ok_or("kid is not a string")?),
        };
        let named = |key: &&VerifyingKey| id.is_none_or(|id| key.id.as_deref() == Some(id));
        let mut candidates = self.keys.iter().filter(named).peekable();
        if candidates.peek().is_none() {
            return Err("no such key");
        }
        if candidates.any(|key| key.verify(algorithm, signed, signature)) {
            Ok(())
        } else {
            Err("wrong signature or algorithm")
        }
    }
}

impl VerifyingKey {
    /// Parses a key of a set; `None` if it cannot sign tokens.
    fn read(key: &Object) -> Result<Option<Self>, &'static str> {
        if !is_for_signatures(key)? {
            return Ok(None);
        }
        let octets = |name| {
            let text = string(key.get(name)).ok_or("a coordinate is missing")?;
            base64url_decode(text).ok_or("a coordinate is not base64url")
        };
        let curve = string(key.get("crv"));
        let material = match (string(key.get("kty")).ok_or("no kty")?, curve) {
            ("RSA", _) => rsa(octets("n")?, octets("e")?)?,
            ("EC", Some("P-256")) => Material::P256(point(&octets("x")?, &octets("y")?, 32)?),
            ("EC", Some("P-384")) => Material::P384(point(&octets("x")?, &octets("y")?, 48)?),
            ("OKP", Some("Ed25519")) => {
                let x = octets("x")?;
                if x.len() != 32 {
                    return Err("a coordinate of the wrong length");
                }
                Material::Ed25519(x)
            }
            _ => return Ok(None),
        };
        Ok(Some(Self {
            id: string(key.get("kid")).map(str::to_owned),
            algorithm: string(key.get("alg")).map(str::to_owned),
            material,
        }))
    }

    /// Verifies a signature, by an algorithm that suits the key (RFC 8725 §3.1).
    fn verify(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        if self
            .algorithm
            .as_deref()
            .is_some_and(|own| own != algorithm)
        {
            return false;
        }
        let verified = match (&self.material, algorithm) {
            (Material::Rsa { n, e }, "RS256") => RsaPublicKeyComponents { n, e }.verify(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                signed,
                signature,
            ),
            (Material::Rsa { n, e }, "PS256") => RsaPublicKeyComponents { n, e }.verify(
                &signature::RSA_PSS_2048_8192_SHA256,
                signed,
                signature,
            ),
            (Material::P256(point), "ES256") => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)
                    .verify(signed, signature)
            }
            (Material::P384(point), "ES384") => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                    .verify(signed, signature)
            }
            (Material::Ed25519(key), "EdDSA") => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(signed, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

/// `use` and `key_ops` (RFC 7517 §4.2, §4.3). Private keys are refused.
fn is_for_signatures(key: &Object) -> Result<bool, &'static str> {
    if key.contains_key("d") {
        return Err("a private key");
    }
    let purpose = key
        .get("use")
        .is_none_or(|value| string(Some(value)) == Some("sig"));
    let operations = match key.get("key_ops") {
        None => true,
        Some(value) => value
            .get::<Vec<JsonValue>>()
            .is_some_and(|all| all.iter().any(|one| string(Some(one)) == Some("verify"))),
    };
    Ok(purpose && operations)
}

fn rsa(n: Vec<u8>, e: Vec<u8>) -> Result<Material, &'static str> {
    let strip = |octets: Vec<u8>| -> Vec<u8> {
        octets.into_iter().skip_while(|&octet| octet == 0).collect()
    };
    let (n, e) = (strip(n), strip(e));
    let unused = n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !RSA_BITS.contains(&(n.len() * 8).saturating_sub(unused)) {
        return Err("an RSA key has 2048 to 8192 bits");
    }
    Ok(Material::Rsa { n, e })
}

/// An uncompressed point (SEC 1 §2.3.3).
fn point(x: &[u8], y: &[u8], length: usize) -> Result<Vec<u8>, &'static str> {
    if x.len() != length || y.len() != length {
        return Err("a coordinate of the wrong length");
    }
    Ok([&[4], x, y].concat())
}

/// Checks the claims (RFC 7519 §4.1) and returns the account.
fn check(claims: &Object, expected: &Expected, now: u64) -> Result<String, &'static str> {
    #[expect(clippy::cast_precision_loss, reason = "exact for 285 million years")]
    let now = now as f64;
    let date = |name| match claims.get(name) {
        None => Ok(None),
        Some(value) => number(value).map(Some).ok_or("a date is not a number"),
    };
    let expiry = date("exp")?.ok_or("no expiry")?;
    if now >= expiry + GRACE {
        return Err("expired");
    }
    if date("nbf")?.is_some_and(|begin| now < begin - GRACE) {
        return Err("not valid yet");
    }
    let issuer = expected.issuer.as_deref();
    if issuer.is_some_and(|issuer| string(claims.get("iss")) != Some(issuer)) {
        return Err("wrong issuer");
    }
    if !is_audience(claims.get("aud"), expected.audience.as_deref()) {
        return Err("wrong audience");
    }
    // An unverified address may belong to anyone (OpenID Connect Core §5.1).
    let verified = claims
        .get("email_verified")
        .map(|value| value.get::<bool>());
    if expected.claim == "email" && verified.is_some_and(|verified| verified != Some(&true)) {
        return Err("address not verified");
    }
    let account = string(claims.get(&expected.claim)).filter(|account| !account.is_empty());
    account.map(str::to_owned).ok_or("no account claim")
}

fn is_audience(claim: Option<&JsonValue>, own: Option<&str>) -> bool {
    match (claim, own) {
        (None, None) => true,
        (Some(JsonValue::String(one)), Some(own)) => one == own,
        (Some(JsonValue::Array(all)), Some(own)) => {
            all.iter().any(|one| string(Some(one)) == Some(own))
        }
        _ => false,
    }
}

/// Types of tokens (RFC 7519 §5.1, RFC 9068 §2.1).
fn is_jwt(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("application/").unwrap_or(&name);
    matches!(name, "jwt" | "at+jwt")
}

/// Decodes the header or the claims of a token.
fn decode(text: &str) -> Result<JsonValue, &'static str> {
    let octets = base64url_decode(text).ok_or("a part is not base64url")?;
    json::parse(&octets)
}

fn object(value: &JsonValue) -> Option<&Object> {
    value.get()
}

fn string(value: Option<&JsonValue>) -> Option<&str> {
    value?.get::<String>().map(String::as_str)
}

/// A date in seconds since 1970.
fn number(value: &JsonValue) -> Option<f64> {
    value
        .get::<f64>()
        .copied()
        .filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests;
