use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The records of real meters, with the name of each, its curve and its key.
pub(crate) fn samples() -> Vec<[String; 4]> {
    let file: Value = serde_json::from_str(include_str!("golden/ocmf.json")).expect("JSON");
    let records = file["records"].as_array().expect("a list");
    let text = |entry: &Value, key: &str| entry[key].as_str().expect("a text").to_owned();
    records.iter().map(|entry| ["name", "curve", "record", "key"].map(|key| text(entry, key))).collect()
}

fn sample(name: &str) -> String {
    let found = samples().into_iter().find(|sample| sample[0].starts_with(name));
    found.map(|[_, _, record, _]| record).expect("it is there")
}

#[test]
fn records_of_real_meters_are_cut_into_their_parts() {
    let keba = sample("KEBA");
    let record = parse(&keba).expect("a record");
    assert_eq!((record.payload.len(), record.signature.len(), record.algorithm), (391, 71, None));
    assert_eq!(record.page, Some(Page { meter: "17619300".to_owned(), class: 'T', number: 32 }));
    assert_eq!(record.readings.iter().map(|reading| reading.kind).collect::<Vec<_>>(), [Some('B'), Some('E')]);
    assert!(keba.contains(record.payload), "it is cut out, not written anew");
    let ours = sample("made");
    let page = parse(&ours).expect("a record").page;
    assert_eq!(page, Some(Page { meter: "M384".to_owned(), class: 'F', number: 7 }));
}

#[test]
fn the_energy_is_between_begin_and_end_of_the_same_quantity() {
    let energy_of = |name: &str| {
        let text = sample(name);
        energy(&[parse(&text).expect("a record")]).map(|energy| (energy.wh.to_string(), energy.tolerance.to_string()))
    };
    assert_eq!(energy_of("KEBA"), Some(("0.1000".to_owned(), "2.2000".to_owned())));
    // The register of energy fed back stands between the two.
    assert_eq!(energy_of("LEM"), Some(("1101.000".to_owned(), "4.000".to_owned())));
    assert_eq!(energy_of("eBZ"), Some(("266".to_owned(), "4".to_owned())));
    assert_eq!(energy_of("DZG"), None, "the end is in another record");
    let begin = sample("DZG");
    let end = begin.replace("\"TX\" : \"B\"", "\"TX\" : \"R\"").replace("9.038", "12.5");
    let both = [parse(&begin).expect("a record"), parse(&end).expect("a record")];
    assert_eq!(energy(&both).map(|energy| energy.wh.to_string()).as_deref(), Some("3462.000"));
}

#[test]
fn what_a_reading_leaves_out_is_as_in_the_one_before() {
    let record = r#"OCMF|{"PG":"T1","GS":"x","RD":[{"TM":"t","TX":"B","RV":1,"RI":"1-b:1.8.0","RU":"kWh"},{"RV":2,"TX":"C"},{"RV":3},{"TX":"E","RV":4}]}|{"SD":"00"}"#;
    let readings = parse(record).expect("a record").readings;
    let kinds: String = readings.iter().filter_map(|reading| reading.kind).collect();
    assert_eq!(kinds, "BCCE");
    assert!(readings.iter().all(|reading| reading.unit == "kWh" && reading.time == "t"));
    assert_eq!(energy(&[parse(record).expect("a record")]).map(|energy| energy.wh), Some(Decimal::from(3_000)));
}

#[test]
fn a_record_is_found_in_hexadecimal_digits_and_in_base64() {
    let plain = sample("KEBA");
    let digits: String = plain.bytes().map(|byte| format!("{byte:02X}")).collect();
    for written in [plain.clone(), format!(" {plain}\n"), digits, STANDARD.encode(&plain)] {
        assert_eq!(text_of(&written).as_deref(), Some(plain.as_str()));
    }
    for other in ["", "OCMF", "0F3A", "<signedMeterValue/>", "T0NNRg=="] {
        assert_eq!(text_of(other), None, "{other}");
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    for (text, part) in [
        ("OCMF|{}", "no signature section"),
        ("OCMF|{\"PG\"|{\"SD\":\"00\"}", "payload cannot be read"),
        ("OCMF|[]|{\"SD\":\"00\"}", "payload is not a JSON object"),
        ("OCMF|{}|{\"SA\":\"x\"}", "no data (SD)"),
        ("OCMF|{}|{\"SD\":\"xyz\"}", "neither hexadecimal digits nor base64"),
        ("no", "does not begin"),
    ] {
        let error = parse(text).expect_err("it cannot be read");
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

proptest! {
    /// Whatever comes, it is read or refused.
    #[test]
    fn nothing_panics(text in ".{0,200}", head in any::<bool>()) {
        let text = if head { format!("OCMF|{text}") } else { text };
        if let Some(record) = text_of(&text)
            && let Ok(record) = parse(&record)
        {
            prop_assert!(text.contains(record.payload) || !head);
        }
    }
}
