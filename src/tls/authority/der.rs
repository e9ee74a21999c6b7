//! What the library that writes certificates does not do: names byte for byte, since it builds names from their parts
//! and cannot say all that the CA of another tool may say, and peers compare these bytes; and private keys in the form
//! of `consul tls`, the only one that Consul's own tool reads.

/// Tags of DER.
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const PARAMETERS: u8 = 0xa0;
/// The object identifier of P-256, with its header.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// Where issuer and subject are among the parts of a certificate's body, which begins with its version.
const ISSUER: usize = 3;
const SUBJECT: usize = 5;

/// The certificate with `issuer` and, if given, `subject` in it as they are encoded, signed anew by `sign`.
///
/// Errors: not a certificate of version 3, or `sign`'s.
pub(crate) fn with_names(
    certificate: &[u8],
    issuer: &[u8],
    subject: Option<&[u8]>,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, String> {
    let strange = || "the new certificate has an unexpected form; this build is broken".to_owned();
    let outer = parts(inside(certificate).ok_or_else(strange)?).ok_or_else(strange)?;
    let [body, algorithm, _] = outer.as_slice() else { return Err(strange()) };
    let mut body = parts(inside(body).ok_or_else(strange)?).ok_or_else(strange)?;
    *body.get_mut(ISSUER).ok_or_else(strange)? = issuer;
    if let Some(subject) = subject {
        *body.get_mut(SUBJECT).ok_or_else(strange)? = subject;
    }
    let body = element(SEQUENCE, &body);
    let signature = sign(&body)?;
    let signature = element(BIT_STRING, &[&[0], &signature]);
    Ok(element(SEQUENCE, &[&body, algorithm, &signature]))
}

/// An EC P-256 key of PKCS#8 as SEC 1 has it, which names its curve inside.
///
/// Errors: not such a key.
pub(crate) fn sec1(pkcs8: &[u8]) -> Result<Vec<u8>, String> {
    let strange = || "the new key has an unexpected form; this build is broken".to_owned();
    let outer = parts(inside(pkcs8).ok_or_else(strange)?).ok_or_else(strange)?;
    let key = outer.get(2).and_then(|text| inside(text)).and_then(inside).ok_or_else(strange)?;
    match parts(key).ok_or_else(strange)?.as_slice() {
        [version, private, public] if public.first() == Some(&0xa1) => {
            Ok(element(SEQUENCE, &[version, private, &element(PARAMETERS, &[P256]), public]))
        }
        _ => Err(strange()),
    }
}

/// One element out of the parts of its content.
fn element(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let length: usize = content.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(u8::try_from(length).unwrap_or(u8::MAX));
    } else {
        let bytes: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(u8::MAX));
        out.extend(bytes);
    }
    content.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// The content of the one element that `bytes` are.
fn inside(bytes: &[u8]) -> Option<&[u8]> {
    let (header, length) = measure(bytes)?;
    bytes.get(header..).filter(|content| content.len() == length)
}

/// The elements one after the other, each with its header.
fn parts(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (header, length) = measure(bytes)?;
        let (part, rest) = bytes.split_at_checked(header.checked_add(length)?)?;
        found.push(part);
        bytes = rest;
    }
    Some(found)
}

/// How long header and content of the first element are.
fn measure(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = *bytes.get(1)?;
    if first < 0x80 {
        return Some((2, first.into()));
    }
    let count = usize::from(first & 0x7f);
    let digits = bytes.get(2..2 + count).filter(|digits| (1..=4).contains(&digits.len()))?;
    let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    Some((2 + count, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_every_length_are_measured_as_they_are_written() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let content = vec![7; length];
            let whole = element(SEQUENCE, &[&content]);
            assert_eq!(inside(&whole), Some(content.as_slice()), "{length}");
            let two = [whole.clone(), whole.clone()].concat();
            assert_eq!(parts(&two), Some(vec![whole.as_slice(); 2]), "{length}");
        }
    }

    #[test]
    fn what_is_cut_or_strange_is_refused() {
        for bytes in
            [&[0x30][..], &[0x30, 2, 0], &[0x30, 0x80, 0], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 0xff]]
        {
            assert_eq!(inside(bytes), None, "{bytes:?}");
            assert_eq!(parts(bytes), None, "{bytes:?}");
        }
        assert!(with_names(&[0x30, 0], &[], None, |_| Ok(Vec::new())).is_err());
    }
}
