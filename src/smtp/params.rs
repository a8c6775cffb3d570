//! The parameters of MAIL and RCPT: the one table of them, each at most once.

use super::cursor::Cursor;
use super::reply::{self, Reply};
use crate::encoding::xtext_decode;

/// BODY= (RFC 6152 §3, RFC 3030 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyType {
    /// 7BIT
    SevenBit,
    /// 8BITMIME
    EightBit,
    /// BINARYMIME
    Binary,
}

/// What MAIL said beside the reverse-path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParams {
    /// Declared size in octets (RFC 1870 §6.1).
    pub size: Option<u64>,
    /// Declared body type.
    pub body: Option<BodyType>,
    /// SMTPUTF8 (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689 §2).
    pub requiretls: bool,
    /// Who submitted the message, as another server says; empty for `<>` (RFC 4954 §5).
    pub auth: Option<String>,
}

impl MailParams {
    /// Takes the rest of the command off the cursor.
    ///
    /// # Errors
    /// 555 for an unknown parameter, 501 for one malformed or given twice.
    pub fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Reply> {
        let mut params = Self::default();
        for word in words(cursor)? {
            let (name, value) = word
                .split_once('=')
                .map_or((word, None), |(n, v)| (n, Some(v)));
            let set = PARAMETERS
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name));
            let (_, set) = set.ok_or(reply::UNKNOWN_PARAMETER)?;
            set(&mut params, value).ok_or(reply::BAD_ARGUMENT)?;
        }
        Ok(params)
    }
}

/// RCPT has no parameter here; any is 555.
///
/// # Errors
/// 555, or 501 where something hangs on the path.
pub fn no_parameters(cursor: &mut Cursor<'_>) -> Result<(), Reply> {
    if words(cursor)?.is_empty() {
        Ok(())
    } else {
        Err(reply::UNKNOWN_PARAMETER)
    }
}

fn words<'a>(cursor: &mut Cursor<'a>) -> Result<Vec<&'a str>, Reply> {
    if !cursor.rest().is_empty() && !cursor.spaces() {
        return Err(reply::BAD_ARGUMENT);
    }
    Ok(cursor
        .rest()
        .split([' ', '\t'])
        .filter(|word| !word.is_empty())
        .collect())
}

type Set = fn(&mut MailParams, Option<&str>) -> Option<()>;

const PARAMETERS: &[(&str, Set)] = &[
    ("SIZE", |params, value| {
        let digits = value
            .filter(|v| (1..=20).contains(&v.len()) && v.bytes().all(|o| o.is_ascii_digit()))?;
        params
            .size
            .replace(digits.parse().ok()?)
            .is_none()
            .then_some(())
    }),
    ("BODY", |params, value| {
        let types = [
            ("7BIT", BodyType::SevenBit),
            ("8BITMIME", BodyType::EightBit),
            ("BINARYMIME", BodyType::Binary),
        ];
        let (_, body) = types
            .into_iter()
            .find(|(name, _)| value.is_some_and(|v| v.eq_ignore_ascii_case(name)))?;
        params.body.replace(body).is_none().then_some(())
    }),
    ("SMTPUTF8", |params, value| {
        (value.is_none() && !std::mem::replace(&mut params.smtputf8, true)).then_some(())
    }),
    ("REQUIRETLS", |params, value| {
        (value.is_none() && !std::mem::replace(&mut params.requiretls, true)).then_some(())
    }),
    ("AUTH", |params, value| {
        let mailbox = match value? {
            "<>" => String::new(),
            coded => xtext_decode(coded).filter(|decoded| !decoded.is_empty())?,
        };
        params.auth.replace(mailbox).is_none().then_some(())
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// R036, R082, R154, R170, R180, R183, A3.
    #[test]
    fn parameters() {
        let parse = |text| MailParams::parse(&mut Cursor::new(text));
        let good = parse(" size=10  BODY=8bitmime SMTPUTF8").ok();
        assert_eq!(
            good,
            Some(MailParams {
                size: Some(10),
                body: Some(BodyType::EightBit),
                smtputf8: true,
                ..MailParams::default()
            })
        );
        for bad in [
            " SIZE=",
            " SIZE=-1",
            " SIZE=99999999999999999999",
            " SIZE=1 SIZE=2",
            " BODY=x",
            " BODY",
            " SMTPUTF8=1",
            " AUTH=",
            " AUTH=++",
            " AUTH=x+0Ay",
            " REQUIRETLS=1",
            "x",
        ] {
            assert_eq!(parse(bad), Err(reply::BAD_ARGUMENT), "{bad}");
        }
        assert_eq!(parse(" RET=FULL"), Err(reply::UNKNOWN_PARAMETER));
        assert_eq!(
            no_parameters(&mut Cursor::new(" NOTIFY=NEVER")),
            Err(reply::UNKNOWN_PARAMETER)
        );
    }
}
