use super::*;

fn data(values: &[f32]) -> Option<TensorData> {
    Some(TensorData::new(values.to_vec(), [values.len()]))
}

fn bits(tensors: Vec<Option<Vec<f32>>>) -> Vec<Option<Vec<u32>>> {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    tensors.into_iter().map(|tensor| tensor.map(bits)).collect()
}

#[test]
fn slices_are_even_and_cover_every_value_once() {
    for lengths in [vec![], vec![1], vec![3, 0, 5, 1], vec![1000], vec![7; 9]] {
        let total: usize = lengths.iter().sum();
        for members in 1..6 {
            let mut found = vec![0; lengths.len()];
            for k in 0..members {
                let pieces = slice_of(&lengths, k, members);
                let of_slice: usize = pieces.iter().map(|piece| piece.values.len()).sum();
                assert!((total / members..=total.div_ceil(members)).contains(&of_slice));
                for SlicePiece { tensor, values } in pieces {
                    assert_eq!(values.start, found[tensor], "a gap or an overlap");
                    found[tensor] = values.end;
                }
            }
            assert_eq!(found, lengths, "{members} members");
        }
    }
}

#[test]
fn sums_of_all_slices_have_the_bits_of_the_whole() {
    // Four parts of a bucket: one tensor of all members, one of none, one of a single member.
    let (lengths, members) = (vec![5, 3, 2], 4);
    let slices = Slices::new(vec![vec![], lengths], members);
    let own = |member: usize| [1.0f32, 1e8, -1e8, 0.3].map(|x| x * 1.1)[member];
    let lone = [f32::MIN_POSITIVE, -0.0];
    let tensors: Vec<Vec<Option<TensorData>>> = (0..members)
        .map(|member| vec![data(&[own(member); 5]), None, data(&lone).filter(|_| member == 2)])
        .collect();
    let sums: Vec<Vec<u8>> = (0..members)
        .map(|member| {
            let part = |from: usize| {
                let message = slices.part(1, member, &tensors[from]);
                assert_eq!(
                    slices.read(&message, from, member),
                    Ok(SliceMessage { kind: PART, bucket: 1 })
                );
                message
            };
            let parts: Vec<Vec<u8>> = (0..members).map(part).collect();
            let sum = slices.sum(1, member, parts.iter().map(|part| (0, part)));
            assert_eq!(slices.read(&sum, member, 0), Ok(SliceMessage { kind: SUM, bucket: 1 }));
            assert!(sum.len() <= slices.max_message_bytes());
            sum
        })
        .collect();
    let whole = vec![Some(vec![(own(0) + own(1)) + (own(2) + own(3)); 5]), None, Some(lone.into())];
    assert_eq!(bits(slices.join(1, &sums).unwrap()), bits(whole));
}

#[test]
fn slices_with_different_tensors_are_refused() {
    let slices = Slices::new(vec![vec![4]], 2);
    let (there, absent) = (slices.part(0, 0, &[data(&[1.0; 4])]), slices.part(0, 1, &[None]));
    let error = slices.join(0, &[there, absent]).unwrap_err();
    assert!(error.contains("2 of 4 values of tensor 0"), "{error}");
}

#[test]
fn a_message_that_does_not_fit_its_slice_is_an_error() {
    let slices = Slices::new(vec![vec![4, 6], vec![4]], 2);
    let tensors = [data(&[1.0; 4]), data(&[2.0; 6])];
    let fails = |bytes: &[u8], part: &str| {
        let error = slices.read(bytes, 1, 0).unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    // The slice of member 0 has the first tensor, and one value of the second.
    let good = slices.part(0, 0, &tensors);
    assert!(slices.read(&good, 1, 0).is_ok());
    for length in 0..good.len() {
        fails(&good[..length], "cut short");
    }
    fails(&[&good[..], &[0]].concat(), "1 bytes after bucket 0");
    fails(&slices.part(0, 1, &tensors), "1 pieces of slice 0 of bucket 0, which has 2");
    let with = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes
    };
    fails(&with(0, &[7]), "kind 7");
    fails(&with(0, &[SUM]), "2 pieces of slice 1 of bucket 0, which has 1");
    fails(&with(1, &[2]), "bucket 2, but there are 2");
    fails(&with(1, &[1]), "2 pieces of slice 0 of bucket 1, which has 1");
    fails(&with(9, &[0xff; 8]), "18446744073709551615 pieces");
    fails(&with(HEADER_BYTES, &[9]), "marked tensor 0 of bucket 0 with 9");
    fails(&with(HEADER_BYTES + 1, &[3]), "3 values of tensor 0 of bucket 0, whose slice has 4");
    fails(&with(HEADER_BYTES + 1, &[0xff; 8]), "18446744073709551615 values of tensor 0");
}
