use std::sync::{Arc, Barrier};

use dip_burn::runtime::ProcessGroup;
use dip_burn::runtime::transport::TransportGroup;

use super::{member, on_processes, part, values};

/// The channel of the sums of rank 0.
const SUMS: u32 = 16;

#[test]
fn sums_over_three_processes_have_the_bits_of_one_process() {
    // In single precision 1 + 1e8 - 1e8 is 0 or 1, depending on the order. The second tensor needs more than one frame.
    let parts = [1.0f32, 1e8, -1e8];
    let long = |x: f32| vec![x; 3 << 20];
    let found = on_processes(3, move |transport| {
        let number = transport.index();
        let group: &dyn ProcessGroup = &TransportGroup::new(transport.clone());
        let member = member(transport.clone(), vec![vec![2, 1, 3 << 20]; 6]);
        let sums: Vec<_> = (0..6)
            .map(|bucket| {
                let own = parts[number];
                let lone = if number == 1 { part(&[5.0]) } else { None };
                let second = if bucket == 2 { part(&long(own)) } else { None };
                member.contribute(bucket, vec![part(&[own, 0.1]), lone, second]).unwrap();
                values(member.sum(bucket).unwrap())
            })
            .collect();
        // No process leaves before all have their sums.
        group.agree("the end", String::new).unwrap();
        transport.leave(None);
        sums
    });
    let expected = Some(vec![1.0f32 + 1e8 - 1e8, 0.1f32 + 0.1 + 0.1]);
    for sums in &found {
        for (bucket, sum) in sums.iter().enumerate() {
            assert_eq!(sum[..2], [expected.clone(), Some(vec![5.0])], "{bucket}");
            assert_eq!(sum[2], (bucket == 2).then(|| long(1.0f32 + 1e8 - 1e8)));
        }
    }
}

#[test]
fn sums_that_fit_no_bucket_or_are_out_of_order_end_the_run_and_name_their_process() {
    // Of the two values of each bucket process 0 sums the first, and process 1 the second. Kind, bucket, one piece, which is there, its
    // values.
    let message = |kind: u8, bucket: u64, values: &[f32]| {
        let mut bytes = vec![kind];
        bytes.extend([bucket.to_le_bytes(), 1u64.to_le_bytes()].concat());
        bytes.push(1);
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        bytes
    };
    let (part, sum, one) = (0, 1, [1.0]);
    let cases: Vec<(Vec<Vec<u8>>, &str)> = vec![
        (vec![message(part, 0, &[1.0; 2])], "2 values of tensor 0 of bucket 0, whose slice has 1"),
        (vec![message(sum, 2, &[1.0; 3])], "3 values of tensor 0 of bucket 2, whose slice has 1"),
        (vec![message(part, 9, &one)], "bucket 9, but there are 4"),
        (vec![message(sum, 9, &one)], "bucket 9, but there are 4"),
        (vec![message(part, 0, &one); 2], "its part of bucket 0 twice"),
        (vec![message(sum, 2, &one)], "the sum of bucket 2 before all parts"),
        (vec![message(7, 2, &one)], "neither a part nor a sum, but kind 7"),
        (vec![vec![0; 17 << 20]], "more than 16777216 bytes"),
        (vec![vec![7; 3]], "cut short"),
    ];
    for (messages, expected) in cases {
        let errors = on_processes(2, move |transport| {
            if transport.index() == 1 {
                messages.iter().for_each(|bytes| transport.send(&[0], SUMS, bytes.clone()));
                // Waits to be told of the failure of process 0.
                let group: &dyn ProcessGroup = &TransportGroup::new(transport);
                return group.all_gather(Vec::new()).unwrap_err().to_string();
            }
            let member = member(transport.clone(), vec![vec![2]; 4]);
            assert!(member.sum(0).is_err());
            let error = transport.failure().unwrap().to_string();
            transport.leave(Some(&error));
            error
        });
        let [first, second] = &errors[..] else { panic!("two processes") };
        assert!(first.starts_with("process 1 (") && first.contains(expected), "{first}");
        assert!(second.contains("has ended") && second.contains(expected), "{second}");
    }
}

#[test]
fn a_process_that_stops_in_the_middle_without_an_error_is_named() {
    let all_are_there = Arc::new(Barrier::new(2));
    let ends = on_processes(2, move |transport| {
        all_are_there.wait();
        if transport.index() == 1 {
            transport.leave(None);
            return String::new();
        }
        let member = member(transport.clone(), vec![vec![1]; 4]);
        let _ = member.contribute(2, vec![part(&[1.0])]);
        assert!(member.sum(2).is_err());
        transport.failure().unwrap().to_string()
    });
    let stopped = "stopped before the end of its run";
    assert!(ends[0].starts_with("process 1 (") && ends[0].contains(stopped), "{}", ends[0]);
}

#[test]
fn a_sum_that_panics_is_reported_with_its_process() {
    let ends = on_processes(2, |transport| {
        let member = member(transport.clone(), vec![vec![2]; 2]);
        // Parts that no rank has: a process looks through what others send, and trusts its own.
        let own = part(&[1.0, 2.0, 3.0][..3 - transport.index()]);
        let _ = member.contribute(0, vec![own]);
        assert!(member.sum(0).is_err());
        let error = transport.failure().unwrap().to_string();
        transport.leave(Some(&error));
        error
    });
    assert!(ends[0].starts_with("process 0 (") && ends[0].contains("failed to sum"), "{}", ends[0]);
    assert!(ends[1].contains("process 0 (") && ends[1].contains("failed to sum"), "{}", ends[1]);
}
