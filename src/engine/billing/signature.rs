//! Verifying what a meter has signed, with its public key.
//!
//! Verified are signatures by ECDSA with SHA-256 on secp256r1, secp384r1, secp256k1, brainpoolP256r1 and brainpoolP384r1. The other curves of the
//! Open Charge Metering Format (secp192k1, secp192r1) are known by name only: for them the answer is "not here", never "wrong".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bp256::BrainpoolP256r1;
use bp384::BrainpoolP384r1;
use ecdsa::elliptic_curve::array::ArraySize;
use ecdsa::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use ecdsa::elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytesSize};
use ecdsa::signature::hazmat::PrehashVerifier as _;
use ecdsa::{EcdsaCurve, Signature, SignatureSize, VerifyingKey};
use k256::Secp256k1;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, EcdsaVerificationAlgorithm, UnparsedPublicKey};

use super::ocmf::{Record, hex};

/// Whether a signature is that of a public key (a point) over a message.
type Verifier = fn(point: &[u8], message: &[u8], signature: &Numbers) -> bool;

/// A curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// secp192k1.
    Secp192k1,
    /// secp192r1, prime192v1.
    Secp192r1,
    /// secp256k1.
    Secp256k1,
    /// secp256r1, prime256v1, P-256.
    Secp256r1,
    /// secp384r1, P-384.
    Secp384r1,
    /// brainpoolP256r1.
    Brainpool256r1,
    /// brainpoolP384r1.
    Brainpool384r1,
}

impl Curve {
    const ALL: [Self; 7] = [
        Self::Secp192k1,
        Self::Secp192r1,
        Self::Secp256k1,
        Self::Secp256r1,
        Self::Secp384r1,
        Self::Brainpool256r1,
        Self::Brainpool384r1,
    ];

    /// Its name in the format.
    const fn name(self) -> &'static str {
        match self {
            Self::Secp192k1 => "secp192k1",
            Self::Secp192r1 => "secp192r1",
            Self::Secp256k1 => "secp256k1",
            Self::Secp256r1 => "secp256r1",
            Self::Secp384r1 => "secp384r1",
            Self::Brainpool256r1 => "brainpool256r1",
            Self::Brainpool384r1 => "brainpool384r1",
        }
    }

    /// What stands before an uncompressed point in a `SubjectPublicKeyInfo` (RFC 5480), up to the point's own first byte.
    const fn info(self) -> &'static [u8] {
        match self {
            Self::Secp192k1 => b"\x30\x46\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x1f\x03\x32\x00",
            Self::Secp192r1 => {
                b"\x30\x49\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x01\x03\x32\x00"
            }
            Self::Secp256k1 => b"\x30\x56\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x0a\x03\x42\x00",
            Self::Secp256r1 => {
                b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00"
            }
            Self::Secp384r1 => b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00",
            Self::Brainpool256r1 => {
                b"\x30\x5a\x30\x14\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01\x07\x03\x42\x00"
            }
            Self::Brainpool384r1 => {
                b"\x30\x7a\x30\x14\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x09\x2b\x24\x03\x03\x02\x08\x01\x01\x0b\x03\x62\x00"
            }
        }
    }

    /// The length of a coordinate in bytes.
    const fn coordinate(self) -> usize {
        match self {
            Self::Secp192k1 | Self::Secp192r1 => 24,
            Self::Secp256k1 | Self::Secp256r1 | Self::Brainpool256r1 => 32,
            Self::Secp384r1 | Self::Brainpool384r1 => 48,
        }
    }

    /// What verifies `signature` over `message` with the public key `point`; `None`: nothing here.
    fn verifier(self) -> Option<Verifier> {
        match self {
            Self::Secp256r1 => {
                Some(|point, message, signature| by_ring(&ECDSA_P256_SHA256_ASN1, point, message, signature))
            }
            Self::Secp384r1 => {
                Some(|point, message, signature| by_ring(&ECDSA_P384_SHA256_ASN1, point, message, signature))
            }
            Self::Secp256k1 => Some(by_curve::<Secp256k1>),
            Self::Brainpool256r1 => Some(by_curve::<BrainpoolP256r1>),
            Self::Brainpool384r1 => Some(by_curve::<BrainpoolP384r1>),
            Self::Secp192k1 | Self::Secp192r1 => None,
        }
    }

    fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase().replace("brainpoolp", "brainpool");
        Self::ALL.into_iter().find(|curve| curve.name() == name)
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its curve; `None`: it is a bare point, of the curve that the signature names.
    curve: Option<Curve>,
    /// The uncompressed point: 4, x, y.
    point: Vec<u8>,
}

impl Key {
    /// Reads a key in DER (`SubjectPublicKeyInfo`), or a bare point with or without the 4 before it.
    ///
    /// # Errors
    /// What it should be.
    pub fn of(bytes: &[u8]) -> Result<Self, String> {
        for curve in Curve::ALL {
            if let Some(point) = bytes.strip_prefix(curve.info())
                && point.len() == 2 * curve.coordinate() + 1
                && point.first() == Some(&4)
            {
                return Ok(Self { curve: Some(curve), point: point.to_vec() });
            }
        }
        match (bytes.len(), bytes.first()) {
            (49 | 65 | 97, Some(4)) => Ok(Self { curve: None, point: bytes.to_vec() }),
            (48 | 64 | 96, _) => Ok(Self { curve: None, point: [&[4], bytes].concat() }),
            _ => Err("a public key is a SubjectPublicKeyInfo of one of the curves of OCMF, or a bare point".to_owned()),
        }
    }

    /// Reads a key in hexadecimal digits, base64 or PEM, also as OCPP 2.x stations write it (`oca:base16:asn1:…`, and that in base64).
    ///
    /// # Errors
    /// What it should be.
    pub fn read(text: &str) -> Result<Self, String> {
        Self::of(&bytes_of(text).ok_or("a public key is written in hexadecimal digits, base64 or PEM")?)
    }

    /// The key in DER, if its curve is known; else the bare point.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self.curve {
            Some(curve) => [curve.info(), &self.point].concat(),
            None => self.point.clone(),
        }
    }
}

/// The bytes of a key as people and stations write it.
#[must_use]
pub fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let text: String = text.lines().filter(|line| !line.starts_with("-----")).flat_map(str::chars).collect();
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if let Some(rest) = text.strip_prefix("oca:") {
        // oca:base16:asn1:3059…
        let mut parts = rest.splitn(3, ':');
        let (encoding, _, key) = (parts.next()?, parts.next()?, parts.next()?);
        return if encoding == "base64" { STANDARD.decode(key).ok() } else { hex(key) };
    }
    let bytes = hex(&text).or_else(|| STANDARD.decode(&text).ok())?;
    match std::str::from_utf8(&bytes) {
        Ok(inner) if inner.starts_with("oca:") => bytes_of(inner),
        Ok(_) | Err(_) => Some(bytes),
    }
}

/// What came of verifying a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is that of the key over these bytes.
    Right,
    /// It is not.
    Wrong,
    /// It cannot be told here, for this reason.
    Unknown(String),
}

/// Verifies the signature of a record with a key.
#[must_use]
pub fn verify(record: &Record<'_>, key: &Key) -> Verdict {
    let curve = match curve_of(record.algorithm.as_deref(), key) {
        Ok(curve) => curve,
        Err(reason) => return Verdict::Unknown(reason),
    };
    if key.point.len() != 2 * curve.coordinate() + 1 {
        return Verdict::Unknown(format!("the key is none of {}", curve.name()));
    }
    let Some(verifier) = curve.verifier() else {
        return Verdict::Unknown(format!("signatures on {} cannot be verified here", curve.name()));
    };
    let signature = Numbers::of(&record.signature, curve.coordinate());
    let is_right = signature.is_some_and(|signature| verifier(&key.point, record.payload.as_bytes(), &signature));
    if is_right { Verdict::Right } else { Verdict::Wrong }
}

fn by_ring(algorithm: &'static EcdsaVerificationAlgorithm, point: &[u8], message: &[u8], signature: &Numbers) -> bool {
    let signature = signature.der();
    signature.is_some_and(|signature| UnparsedPublicKey::new(algorithm, point).verify(message, &signature).is_ok())
}

fn by_curve<C>(point: &[u8], message: &[u8], signature: &Numbers) -> bool
where
    C: EcdsaCurve + CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
    SignatureSize<C>: ArraySize,
{
    let (key, signature) = (VerifyingKey::<C>::from_sec1_bytes(point), Signature::<C>::from_slice(&signature.bare()));
    // Of secp256k1 only the smaller of two equivalent numbers is taken, which is a rule of currencies and not of meters.
    let is_right = |key: &VerifyingKey<C>, signature: &Signature<C>| {
        key.verify_prehash(digest(&SHA256, message).as_ref(), &signature.normalize_s()).is_ok()
    };
    matches!((key, signature), (Ok(key), Ok(signature)) if is_right(&key, &signature))
}

/// The curve of a signature. Where it names no algorithm it is the key's, or the default of the format.
fn curve_of(algorithm: Option<&str>, key: &Key) -> Result<Curve, String> {
    let Some(algorithm) = algorithm.filter(|algorithm| !algorithm.is_empty()) else {
        return Ok(key.curve.unwrap_or(Curve::Secp256r1));
    };
    let unknown =
        || format!("signatures by {:?} cannot be verified here", algorithm.chars().take(40).collect::<String>());
    let mut parts = algorithm.split('-');
    let (scheme, curve, hash) = (parts.next(), parts.next(), parts.next());
    if !scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("ECDSA"))
        || !hash.is_some_and(|hash| hash.eq_ignore_ascii_case("SHA256"))
    {
        return Err(unknown());
    }
    let curve = curve.and_then(Curve::named).ok_or_else(unknown)?;
    match key.curve {
        Some(of_key) if of_key != curve => {
            Err(format!("the key is of {}, the signature of {}", of_key.name(), curve.name()))
        }
        Some(_) | None => Ok(curve),
    }
}

/// The two numbers of a signature, in as many bytes as a coordinate has.
struct Numbers {
    r: Vec<u8>,
    s: Vec<u8>,
}

impl Numbers {
    /// From DER, also where a meter wrote needless zeros, or the two bare numbers.
    fn of(signature: &[u8], coordinate: usize) -> Option<Self> {
        let (r, s) = numbers(signature)
            .or_else(|| (signature.len() == 2 * coordinate).then(|| signature.split_at(coordinate)))?;
        Some(Self { r: padded(r, coordinate)?, s: padded(s, coordinate)? })
    }

    fn bare(&self) -> Vec<u8> {
        [self.r.as_slice(), &self.s].concat()
    }

    /// In DER as the standard wants it.
    fn der(&self) -> Option<Vec<u8>> {
        let body = [integer(&self.r)?, integer(&self.s)?].concat();
        let mut written = vec![0x30];
        let length = u8::try_from(body.len()).ok()?;
        if length >= 0x80 {
            written.push(0x81);
        }
        written.push(length);
        written.extend(body);
        Some(written)
    }
}

/// A positive number in `length` bytes.
fn padded(magnitude: &[u8], length: usize) -> Option<Vec<u8>> {
    let first = magnitude.iter().position(|byte| *byte != 0)?;
    let digits = magnitude.get(first..)?;
    let zeros = length.checked_sub(digits.len())?;
    Some([vec![0; zeros].as_slice(), digits].concat())
}

/// The two numbers of a signature in DER.
fn numbers(signature: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = signature.strip_prefix(&[0x30])?;
    let rest = rest.strip_prefix(&[0x81]).unwrap_or(rest);
    let (length, rest) = rest.split_first()?;
    if rest.len() != usize::from(*length) {
        return None;
    }
    let (r, rest) = number(rest)?;
    let (s, rest) = number(rest)?;
    rest.is_empty().then_some((r, s))
}

fn number(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.strip_prefix(&[0x02])?.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A positive number in DER.
fn integer(magnitude: &[u8]) -> Option<Vec<u8>> {
    let first = magnitude.iter().position(|byte| *byte != 0)?;
    let digits = magnitude.get(first..)?;
    let sign = digits.first().is_some_and(|byte| *byte >= 0x80);
    let length = u8::try_from(digits.len() + usize::from(sign)).ok()?;
    let mut written = vec![0x02, length];
    if sign {
        written.push(0);
    }
    written.extend_from_slice(digits);
    Some(written)
}

#[cfg(test)]
#[path = "signature_tests.rs"]
mod tests;
