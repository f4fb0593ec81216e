use super::*;
use crate::engine::billing::ocmf::parse;
use crate::engine::billing::ocmf::tests::samples;

#[test]
fn what_real_meters_signed_is_verified_or_it_is_said_that_it_cannot_be() {
    let mut verified = 0;
    for [name, curve, record, key] in samples() {
        let record = parse(&record).expect("a record");
        let key = Key::read(&key).expect("a key");
        let verdict = verify(&record, &key);
        if curve != "secp192r1" && curve != "secp192k1" {
            assert_eq!(verdict, Verdict::Right, "{name}");
            verified += 1;
        } else {
            assert_eq!(verdict, Verdict::Unknown(format!("signatures on {curve} cannot be verified here")), "{name}");
        }
    }
    assert_eq!(verified, 7);
}

#[test]
fn one_byte_makes_it_wrong() {
    for [name, _, text, key] in samples().into_iter().filter(|sample| !sample[1].starts_with("secp192")) {
        let key = Key::read(&key).expect("a key");
        let tampered = text.replacen("Wh\"", "Wi\"", 1);
        assert_eq!(verify(&parse(&tampered).expect("a record"), &key), Verdict::Wrong, "{name}");
        // Not even a blank may come or go.
        let spaced = text.replacen(",\"", ", \"", 1);
        assert_eq!(verify(&parse(&spaced).expect("a record"), &key), Verdict::Wrong, "{name}");
        let mut record = parse(&text).expect("a record");
        record.signature.pop();
        assert_eq!(verify(&record, &key), Verdict::Wrong, "{name}");
    }
}

#[test]
fn keys_are_read_as_people_and_stations_write_them() {
    let [_, _, _, digits] = samples().into_iter().next().expect("the first");
    let key = Key::read(&digits).expect("a key");
    let der = hex(&digits).expect("digits");
    let base64 = STANDARD.encode(&der);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &base64[..64], &base64[64..]);
    let named = format!("oca:base16:asn1:{digits}");
    for written in [digits.to_lowercase(), base64, pem, named.clone(), STANDARD.encode(&named)] {
        assert_eq!(Key::read(&written).as_ref(), Ok(&key), "{written}");
    }
    assert_eq!(key.to_bytes(), der);
    let bare = [&digits[digits.len() - 130..], &digits[digits.len() - 128..]];
    let [_, _, record, _] = samples().into_iter().next().expect("the first");
    for point in bare {
        let key = Key::read(point).expect("a key");
        assert_eq!(verify(&parse(&record).expect("a record"), &key), Verdict::Right);
        assert_eq!(key.to_bytes().len(), 65);
    }
    for wrong in ["", "zz", "3059", &digits[..digits.len() - 2]] {
        assert!(Key::read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_signature_of_bare_numbers_or_with_needless_zeros_is_the_same() {
    let [_, _, text, key] = samples().into_iter().next().expect("the first");
    let key = Key::read(&key).expect("a key");
    let mut record = parse(&text).expect("a record");
    let (r, s) = numbers(&record.signature).expect("DER");
    let mut bare = r[r.len() - 32..].to_vec();
    bare.extend_from_slice(&s[s.len() - 32..]);
    let zeros = [&[0x30, 72, 0x02, 34, 0, 0], &bare[..32], &[0x02, 34, 0, 0], &bare[32..]].concat();
    for signature in [bare, zeros] {
        record.signature = signature;
        assert_eq!(verify(&record, &key), Verdict::Right);
    }
    for signature in [vec![], vec![0; 64], vec![0x30, 0], vec![0x30, 0x81], vec![0x30, 4, 2, 200, 1, 1]] {
        record.signature = signature;
        assert_eq!(verify(&record, &key), Verdict::Wrong);
    }
}

#[test]
fn of_two_equivalent_numbers_the_larger_is_right_too() {
    let samples = samples();
    let [_, _, text, key] = samples.iter().find(|sample| sample[1] == "secp256k1").expect("one");
    let (mut record, key) = (parse(text).expect("a record"), Key::read(key).expect("a key"));
    let numbers = Numbers::of(&record.signature, 32).expect("numbers");
    let order = hex("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").expect("digits");
    let mut other = vec![0; 32];
    let mut borrow = 0;
    for place in (0..32).rev() {
        let difference = i16::from(order[place]) - i16::from(numbers.s[place]) - borrow;
        borrow = i16::from(difference < 0);
        other[place] = u8::try_from(difference.rem_euclid(256)).expect("a byte");
    }
    for s in [numbers.s, other] {
        record.signature = [numbers.r.as_slice(), &s].concat();
        assert_eq!(verify(&record, &key), Verdict::Right);
    }
}

#[test]
fn a_signature_by_something_else_is_not_called_wrong() {
    let [_, _, text, key] = samples().into_iter().next().expect("the first");
    let key = Key::read(&key).expect("a key");
    let mut record = parse(&text).expect("a record");
    for algorithm in
        ["ECDSA-secp256r1-SHA512", "RSA-2048-SHA256", "ECDSA-secp384r1-SHA256", "ECDSA-brainpoolP256r1-SHA256", "x"]
    {
        record.algorithm = Some(algorithm.to_owned());
        assert!(matches!(verify(&record, &key), Verdict::Unknown(_)), "{algorithm}");
    }
}
