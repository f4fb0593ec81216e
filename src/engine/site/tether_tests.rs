use super::*;

const START: Mono = Mono::from_ms(10_000);

fn amps(a: i32) -> Current {
    Current::from_a(a)
}

fn tether(tamed: bool) -> Tether {
    Tether::new(amps(32), amps(6), &StationModel::default(), tamed, START)
}

fn of_form(lease: LeaseForm) -> Tether {
    Tether::new(amps(32), amps(6), &StationModel { lease, ..StationModel::default() }, false, START)
}

impl Tether {
    fn send(&mut self, limit: Current, now: Mono) {
        self.sent(1, limit, self.lasts_ms(limit), now);
    }

    fn told(&mut self, limit: Current, now: Mono) {
        self.send(limit, now);
        self.accepted(1, now);
    }
}

#[test]
fn untamed_counts_at_its_maximum_until_it_accepts() {
    let mut tether = tether(false);
    assert_eq!(tether.committed(true, START), amps(32));
    tether.send(amps(10), START);
    assert_eq!(tether.committed(true, START), amps(32));
    tether.accepted(1, START.plus_ms(100));
    // The car has until the end of its reaction time.
    assert_eq!(tether.committed(true, START.plus_ms(5_000)), amps(32));
    assert_eq!(tether.committed(true, START.plus_ms(5_100)), amps(10));
}

#[test]
fn an_unanswered_raise_counts_and_an_unanswered_cut_does_not() {
    let mut tether = tether(true);
    tether.send(amps(10), START);
    tether.accepted(1, START);
    let later = START.plus_ms(6_000);
    tether.send(amps(16), later);
    assert_eq!(tether.committed(true, later), amps(16));
    tether.unanswered(1);
    assert_eq!(tether.committed(true, later), amps(16));
    tether.send(amps(8), later);
    assert_eq!(tether.committed(true, later), amps(16));
    tether.refused(1, later);
    assert_eq!(tether.committed(true, later), amps(16));
    assert_eq!(tether.offered().map(|sent| sent.limit), Some(amps(16)));
}

#[test]
fn an_answer_that_comes_late_makes_certain_again_what_is_in_force() {
    let mut tether = tether(true);
    tether.told(amps(16), START);
    let later = START.plus_ms(30_000);
    tether.sent(2, amps(8), 120_000, later);
    tether.unanswered(2);
    assert_eq!(tether.committed(true, later), amps(16));
    assert!(tether.recall(2, later));
    tether.accepted(2, later);
    assert_eq!(tether.committed(true, later.plus_ms(4_999)), amps(16), "the car has 5 s");
    assert_eq!(tether.committed(true, later.plus_ms(5_000)), amps(8));
    assert!(!tether.recall(2, later), "once");
}

#[test]
fn a_late_answer_says_nothing_of_what_was_sent_after_it() {
    let mut tether = tether(true);
    tether.told(amps(10), START);
    let later = START.plus_ms(30_000);
    tether.sent(2, amps(8), 120_000, later);
    tether.unanswered(2);
    tether.sent(3, amps(20), 120_000, later.plus_ms(1));
    tether.unanswered(3);
    assert!(tether.recall(2, later));
    tether.accepted(2, later);
    assert_eq!(tether.committed(true, later.plus_ms(6_000)), amps(20), "that one may be in force too");
    assert!(tether.recall(3, later));
    tether.refused(3, later);
    assert_eq!(tether.committed(true, later.plus_ms(6_000)), amps(8));
}

#[test]
fn what_was_overtaken_and_is_answered_after_the_cut_is_told_again_at_once() {
    let mut tether = tether(true);
    tether.told(amps(10), START);
    let later = START.plus_ms(30_000);
    tether.sent(2, amps(20), 120_000, later);
    tether.overtaken(2, later);
    tether.sent(3, amps(6), 120_000, later.plus_ms(1));
    tether.accepted(3, later.plus_ms(2));
    assert!(!tether.has_straggled(later.plus_ms(3)));
    assert!(!tether.recall(2, later.plus_ms(3)), "which of the two came last is not known");
    assert!(tether.has_straggled(later.plus_ms(3)));
    assert_eq!(tether.committed(true, later.plus_ms(10_000)), amps(20));
}

#[test]
fn what_was_never_answered_is_unsure_and_what_was_overtaken_has_its_own_time() {
    let mut tether = tether(true);
    tether.told(amps(10), START);
    assert!(!tether.is_unsure());
    let later = START.plus_ms(30_000);
    tether.sent(2, amps(20), 120_000, later);
    assert!(!tether.is_unsure(), "the answer may come");
    tether.overtaken(2, later);
    tether.sent(3, amps(6), 120_000, later.plus_ms(1));
    assert_eq!(tether.waits_since(), Some(later.plus_ms(1)));
    tether.accepted(3, later.plus_ms(2));
    assert!(!tether.is_unsure());
    tether.sent(4, amps(8), 120_000, later.plus_ms(3));
    tether.unanswered(4);
    assert!(tether.is_unsure());
    tether.disconnected(later);
    assert!(tether.is_unsure(), "nobody will say it any more");
    tether.sent(5, amps(8), 120_000, later.plus_ms(4));
    tether.accepted(5, later.plus_ms(5));
    assert!(!tether.is_unsure());
}

#[test]
fn the_answers_of_a_lost_connection_do_not_come() {
    let mut tether = tether(true);
    tether.sent(2, amps(8), 120_000, START);
    tether.unanswered(2);
    tether.disconnected(START);
    assert!(!tether.recall(2, START));
}

#[test]
fn a_cut_that_a_pending_raise_hides_settles_all_the_same() {
    let mut tether = tether(true);
    tether.told(amps(10), START);
    let later = START.plus_ms(6_000);
    tether.sent(2, amps(8), 120_000, later);
    tether.sent(3, amps(12), 120_000, later);
    tether.accepted(2, later);
    tether.refused(3, later);
    assert!(tether.committed(true, later.plus_ms(4_999)) >= amps(10), "the car has 5 s");
    assert_eq!(tether.committed(true, later.plus_ms(5_000)), amps(8));
}

#[test]
fn a_second_cut_does_not_lengthen_the_time_of_the_first() {
    let mut tether = tether(true);
    let at = |ms: u64| START.plus_ms(6_000 + ms);
    tether.told(amps(20), START);
    tether.told(amps(10), at(0));
    tether.told(amps(8), at(3_000));
    assert_eq!(tether.committed(true, at(4_999)), amps(20));
    assert_eq!(tether.committed(true, at(5_000)), amps(10));
    assert_eq!(tether.committed(true, at(8_000)), amps(8));
}

#[test]
fn silent_it_falls_to_the_fallback_when_the_lease_has_run_out() {
    let mut tether = tether(true);
    tether.send(amps(20), START);
    tether.accepted(1, START);
    let step = START.plus_ms(120_000);
    assert_eq!(tether.committed(false, step.plus_ms(24_999)), amps(20));
    assert_eq!(tether.committed(false, step.plus_ms(25_000)), amps(6));
}

#[test]
fn a_pause_is_counted_as_fallback_before_it_steps_up_and_after_all_steps_down() {
    let mut tether = tether(true);
    tether.send(amps(0), START);
    tether.accepted(1, START);
    assert_eq!(tether.committed(false, START.plus_ms(159_999)), amps(0));
    assert_eq!(tether.committed(false, START.plus_ms(160_000)), amps(6));
    // 30 s renewal and 120 s lease: the last step down is over before the first step up counts.
    let model = StationModel::default();
    assert!(STEP_UP_DELAY_MS > model.renew_ms + STEP_MARGIN_MS + model.reaction_ms);
}

#[test]
fn more_than_the_least_that_may_be_in_force_may_be_a_raise() {
    let mut tether = tether(true);
    tether.told(amps(0), START);
    assert_eq!(tether.least(None, START.plus_ms(100_000)), amps(0));
    // It counts as the fallback already, and may still be paused.
    let step = START.plus_ms(180_000);
    let about = step.minus_ms(STEP_MARGIN_MS);
    assert_eq!((tether.committed(true, about), tether.least(None, about)), (amps(6), amps(0)));
    assert_eq!(tether.least(None, step.plus_ms(25_000)), amps(6));
    tether.told(amps(9), step);
    tether.sent(2, amps(9), 120_000, step.plus_ms(30_000));
    let over = step.plus_ms(100_000);
    assert_eq!((tether.committed(true, over), tether.least(Some(2), over)), (amps(9), amps(6)));
    let mut tether = self::tether(false);
    tether.sent(1, amps(9), 120_000, START);
    assert_eq!(tether.least(Some(1), START), amps(32), "nothing is known");
}

#[test]
fn a_boot_makes_it_uncertain_after_a_moment() {
    let mut tether = tether(true);
    tether.send(amps(0), START);
    tether.accepted(1, START);
    tether.booted(START);
    assert!(tether.needs_limit());
    assert_eq!(tether.committed(true, START.plus_ms(5_000)), amps(0));
    assert_eq!(tether.committed(true, START.plus_ms(5_001)), amps(32));
}

#[test]
fn a_second_boot_makes_nothing_certain_that_the_first_made_uncertain() {
    let mut tether = tether(true);
    tether.told(amps(0), START);
    tether.booted(START);
    tether.booted(START.plus_ms(10_000));
    assert_eq!(tether.committed(true, START.plus_ms(10_000)), amps(32));
}

#[test]
fn a_station_that_never_answers_stays_bounded_and_counted() {
    let mut tether = tether(true);
    tether.send(amps(20), START);
    tether.accepted(1, START);
    for round in 0..100 {
        tether.send(amps(6), START.plus_ms(round));
        tether.unanswered(1);
    }
    assert!(tether.candidates().count() <= 4);
    assert_eq!(tether.committed(true, START.plus_ms(10_000)), amps(20));
}

#[test]
fn without_a_lease_silence_is_the_maximum() {
    let model = StationModel { lease: LeaseForm::None, ..StationModel::default() };
    let mut tether = Tether::new(amps(32), amps(32), &model, false, START);
    tether.send(amps(8), START);
    tether.accepted(1, START);
    assert_eq!(tether.committed(true, START.plus_ms(200_000)), amps(8));
    assert_eq!(tether.committed(false, START.plus_ms(200_000)), amps(32));
}

#[test]
fn a_limit_that_ends_is_counted_from_the_base_on_only_once_the_base_is_confirmed() {
    // OCPP 1.6 §3.13.2: what is not valid any more leaves the next lower level, or nothing.
    let mut tether = of_form(LeaseForm::TwoLevels);
    assert!(tether.needs_base());
    tether.base_sent(1, START);
    assert_eq!(tether.committed(true, START), amps(32));
    tether.accepted(1, START);
    assert!(!tether.needs_base() && tether.needs_limit());
    // What lies above the base from an earlier life is not known before it has ended.
    assert_eq!(tether.committed(true, START.plus_ms(10_000)), amps(32));
    tether.told(amps(16), START.plus_ms(10_000));
    let later = START.plus_ms(20_000);
    assert_eq!((tether.committed(true, later), tether.committed(false, later)), (amps(16), amps(16)));
    assert_eq!(tether.committed(false, START.plus_ms(160_000)), amps(6));
    tether.booted(later);
    assert!(tether.needs_base(), "a boot may have lost it");
    assert_eq!(tether.committed(true, later.plus_ms(6_000)), amps(32));
    tether.base_sent(2, later);
    tether.accepted(2, later);
    // The limit above may have survived.
    assert_eq!(tether.committed(true, later.plus_ms(12_000)), amps(16));
}

#[test]
fn without_its_base_two_levels_are_no_lease() {
    let mut tether = of_form(LeaseForm::TwoLevels);
    for _ in 0..2 {
        assert!(tether.needs_base());
        tether.base_sent(1, START);
        tether.refused(1, START);
    }
    assert!(tether.needs_base() && !tether.holds());
    assert_eq!(tether.committed(false, START), amps(32));
}

#[test]
fn a_profile_of_a_transaction_is_gone_with_it_and_leaves_the_base() {
    // OCPP 1.6 §3.13.1: a TxProfile is deleted at the end of its transaction.
    let mut tether = of_form(LeaseForm::TxProfile);
    tether.base_sent(1, START);
    tether.accepted(1, START);
    tether.transaction_changed();
    let later = START.plus_ms(10_000);
    assert_eq!(tether.committed(true, later), amps(6));
    tether.told(amps(0), later);
    assert_eq!(tether.committed(true, later.plus_ms(6_000)), amps(0));
    // Some drop it as soon as they are offline.
    assert_eq!(tether.committed(false, later.plus_ms(6_000)), amps(6));
    tether.transaction_changed();
    assert_eq!(tether.committed(true, later.plus_ms(6_000)), amps(6));
    // An answer that comes after the end says nothing of the next transaction.
    tether.send(amps(16), later);
    tether.transaction_changed();
    tether.accepted(1, later);
    assert_eq!(tether.committed(true, later.plus_ms(6_000)), amps(6));
}

#[test]
fn a_station_that_takes_no_base_is_limited_while_it_answers_and_counts_at_its_maximum_when_silent() {
    let mut tether = of_form(LeaseForm::TxProfile);
    for _ in 0..2 {
        tether.base_sent(1, START);
        tether.refused(1, START);
    }
    assert!(!tether.needs_base());
    tether.transaction_changed();
    tether.told(amps(10), START);
    let later = START.plus_ms(6_000);
    assert_eq!((tether.committed(true, later), tether.committed(false, later)), (amps(10), amps(32)));
    tether.transaction_changed();
    assert_eq!(tether.committed(true, later), amps(32), "nothing limits the next transaction");
}

#[test]
fn a_lease_that_is_not_trusted_counts_as_none() {
    let mut tether = of_form(LeaseForm::Auto);
    assert_eq!((tether.form(), tether.holds()), (LeaseForm::TxDefaultProfile, false));
    tether.told(amps(10), START);
    let later = START.plus_ms(6_000);
    assert_eq!((tether.committed(true, later), tether.committed(false, later)), (amps(10), amps(32)));
    assert_eq!(tether.committed(true, START.plus_ms(110_000)), amps(32), "nobody knows what it steps to");
    tether.told(amps(10), later);
    tether.trust(true);
    assert_eq!(tether.committed(false, later.plus_ms(300_000)), amps(6));
}

#[test]
fn what_another_form_has_left_counts_until_it_has_ended() {
    let mut tether = tether(true);
    tether.told(amps(10), START);
    tether.choose(LeaseForm::TwoLevels, true, START);
    tether.base_sent(1, START);
    tether.accepted(1, START);
    tether.told(amps(8), START);
    assert_eq!(tether.committed(true, START.plus_ms(199_999)), amps(32));
    tether.told(amps(8), START.plus_ms(150_000));
    assert_eq!(tether.committed(true, START.plus_ms(200_000)), amps(8));
}

#[test]
fn a_raise_that_a_cut_has_overtaken_counts_until_it_cannot_come_any_more() {
    let mut tether = tether(true);
    tether.told(amps(10), START);
    tether.sent(1, amps(16), 120_000, START);
    tether.sent(2, amps(6), 120_000, START.plus_ms(1_000));
    tether.overtaken(1, START.plus_ms(6_000));
    tether.accepted(2, START.plus_ms(6_500));
    assert_eq!(tether.committed(true, START.plus_ms(20_000)), amps(16));
    assert!(!tether.has_straggled(START.plus_ms(35_999)) && tether.has_straggled(START.plus_ms(36_000)));
    // A renewal that left too early to be behind it does not help.
    tether.told(amps(6), START.plus_ms(30_000));
    assert_eq!(tether.committed(true, START.plus_ms(36_000)), amps(16));
    tether.told(amps(6), START.plus_ms(36_000));
    assert_eq!(tether.committed(true, START.plus_ms(42_000)), amps(6));
}

#[test]
fn what_was_taken_back_before_it_left_was_never_told() {
    let mut tether = tether(true);
    tether.told(amps(10), START);
    tether.sent(2, amps(16), 120_000, START);
    tether.withdrawn(2);
    assert_eq!(tether.committed(true, START.plus_ms(6_000)), amps(10));
}

#[test]
fn one_refused_pause_may_be_a_passing_error_and_two_are_forgotten_after_a_boot_or_a_day() {
    let mut tether = tether(true);
    let refuse = |tether: &mut Tether| {
        tether.send(amps(0), START);
        tether.refused(1, START);
    };
    refuse(&mut tether);
    assert!(!tether.refuses_pause());
    tether.send(amps(0), START);
    tether.failed(1, START);
    assert!(!tether.refuses_pause(), "an error is no refusal");
    tether.told(amps(6), START);
    refuse(&mut tether);
    assert!(tether.refuses_pause());
    tether.forget_refusals(START.plus_ms(PAUSE_ASKED_AGAIN_MS - 1));
    assert!(tether.refuses_pause());
    tether.forget_refusals(START.plus_ms(PAUSE_ASKED_AGAIN_MS));
    assert!(!tether.refuses_pause());
    refuse(&mut tether);
    refuse(&mut tether);
    tether.booted(START);
    assert!(!tether.refuses_pause());
}

#[test]
fn a_restart_does_not_make_certain_what_a_boot_made_uncertain() {
    let mut before = tether(true);
    before.told(amps(6), START);
    before.booted(START.plus_ms(1_000));
    assert!(before.has_booted());
    let mut after = tether(true);
    after.restore(before.candidates().collect(), before.has_booted());
    assert_eq!(after.committed(false, START.plus_ms(1_000)), amps(32));
    after.told(amps(6), START.plus_ms(2_000));
    assert_eq!(after.committed(true, START.plus_ms(10_000)), amps(6));
}

/// Found in an invented site: a gateway that booted without a clock, and a station whose lease had run out meanwhile.
#[test]
fn what_may_be_over_is_no_reason_to_give_as_much() {
    let mut after = tether(true);
    let maybe = SentLimit { maybe: Some(amps(6)), ..SentLimit::lasting(amps(16), START, 430_000) };
    after.restore(vec![maybe], false);
    let soon = START.plus_ms(1_000);
    assert_eq!((after.committed(true, soon), after.least(None, soon)), (amps(16), amps(6)));
    // The next run knows no more, also if its clock is right.
    let mut next = tether(true);
    next.restore(after.candidates().collect(), false);
    assert_eq!((next.committed(true, soon), next.least(None, soon)), (amps(16), amps(6)));
    // Not before it is certain what it has.
    next.told(amps(16), soon);
    assert_eq!(next.least(None, soon), amps(16));
}

/// Found in an invented site: a lease that is not proven counts at the maximum after a restart, and may be far below that.
#[test]
fn who_counts_at_its_maximum_does_not_have_it() {
    let mut after = tether(true);
    after.trust(false);
    after.restore(vec![SentLimit::lasting(amps(16), START, 120_000)], false);
    let soon = START.plus_ms(1_000);
    assert_eq!((after.committed(true, soon), after.least(None, soon)), (amps(32), amps(16)));
    // Of who was never told anything nothing is below the maximum.
    assert_eq!(tether(false).least(None, soon), amps(32));
}

/// A limit that ends 120 s after the station has gone offline, which it may notice 90 s late; accepted above its base.
fn until_offline(limit: Current) -> Tether {
    let mut tether = of_form(LeaseForm::MaxOfflineDuration);
    tether.outlast(270_000, START);
    let now = START.plus_ms(1);
    tether.connected(true, now);
    tether.base_sent(7, now);
    tether.accepted(7, now);
    tether.told(limit, now);
    tether
}

#[test]
fn what_ends_offline_has_no_end_while_the_connection_stands() {
    let tether = until_offline(amps(16));
    for later_ms in [10_000, 119_000, 100_000_000] {
        assert_eq!(tether.committed(true, START.plus_ms(later_ms)), amps(16));
        assert_eq!(tether.committed(false, START.plus_ms(later_ms)), amps(16));
    }
    // It may have been offline since it accepted: then it is at its base.
    assert_eq!(tether.least(None, START.plus_ms(99_000)), amps(16));
    assert_eq!(tether.least(None, START.plus_ms(101_000)), amps(6));
}

#[test]
fn what_ends_offline_is_over_when_the_station_must_have_noticed() {
    let mut tether = until_offline(amps(16));
    let gone = START.plus_ms(50_000);
    tether.disconnected(gone);
    tether.disconnected(gone.plus_ms(30_000));
    let last = gone.plus_ms(90_000 + 120_000 + STEP_MARGIN_MS + 5_000);
    assert_eq!(tether.committed(false, last.minus_ms(1)), amps(16), "from the first end of the connection on");
    assert_eq!(tether.committed(false, last), amps(6));
    assert_eq!(tether.next_change(last.minus_ms(1)), Some(last));
    // What is over stays over; what may not be over is back for good.
    let mut back = tether.clone();
    back.connected(true, last);
    assert_eq!(back.committed(true, last.plus_ms(1)), amps(6));
    assert!(back.needs_limit());
    tether.connected(true, last.minus_ms(1));
    assert_eq!(tether.committed(true, last.plus_ms(100_000_000)), amps(16));
}

#[test]
fn a_pause_that_ends_offline_counts_as_the_fallback_as_soon_as_it_may_be_over() {
    let tether = until_offline(Current::ZERO);
    let first = START.plus_ms(1 + 270_000 - STEP_MARGIN_MS);
    assert_eq!(tether.committed(true, first.minus_ms(1)), Current::ZERO);
    assert_eq!(tether.committed(true, first), amps(6));
    assert_eq!(tether.least(None, first), Current::ZERO);
}

#[test]
fn a_version_without_such_an_end_makes_it_count_as_none() {
    let mut tether = until_offline(amps(16));
    let later = START.plus_ms(10_000);
    tether.disconnected(later);
    tether.connected(false, later);
    assert!(!tether.holds());
    assert_eq!(tether.committed(true, later), amps(32), "nothing is known to be in force");
    tether.base_sent(8, later);
    tether.accepted(8, later);
    tether.told(amps(10), later);
    assert_eq!(tether.committed(false, later.plus_ms(900_000)), amps(32));
}
