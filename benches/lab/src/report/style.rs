//! How a line looks: the same in every panel of a chart.

use std::collections::BTreeMap;

use plotters::style::RGBColor;

use crate::chart::Chart;

pub(super) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub(super) const FAINT: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
pub(super) const BAND: RGBColor = RGBColor(0xf7, 0xee, 0xd8);
pub(super) const BAND_INK: RGBColor = RGBColor(0x8a, 0x6d, 0x1f);
const GREY: RGBColor = RGBColor(0x77, 0x77, 0x77);

// Okabe and Ito's palette, which colour-blind readers can tell apart, with an olive for its yellow, which
// white paper swallows.
const MAINSTAY: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const VARIANTS: [RGBColor; 3] =
    [RGBColor(0xe6, 0x9f, 0x00), RGBColor(0x7f, 0x2f, 0x00), RGBColor(0xd8, 0x4a, 0x7a)];
const RIVALS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x00, 0x00),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x99, 0x99, 0x33),
];

const DASHES: [Option<(i32, i32)>; 5] = [None, Some((9, 4)), Some((3, 3)), Some((18, 5)), Some((2, 7))];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    pub(super) colour: RGBColor,
    pub(super) width: u32,
    /// Pixels drawn and left out.
    pub(super) dashes: Option<(i32, i32)>,
}

/// The look of each line by its name. Mainstay is thick and its variants are warm, whatever runs beside them.
pub(super) fn looks(chart: &Chart) -> BTreeMap<&str, Look> {
    let mut looks = BTreeMap::new();
    let (mut variants, mut rivals, mut references) = (0, 0, 0);
    for line in chart.panels.iter().flat_map(|panel| &panel.lines) {
        looks.entry(line.name.as_str()).or_insert_with(|| {
            if line.reference {
                references += 1;
                Look { colour: GREY, width: 2, dashes: Some([(7, 5), (2, 4), (12, 4)][(references - 1) % 3]) }
            } else if line.name == "mainstay" {
                Look { colour: MAINSTAY, width: 5, dashes: None }
            } else if line.name.starts_with("mainstay") {
                taken(&VARIANTS, &mut variants, 2)
            } else {
                taken(&RIVALS, &mut rivals, 2)
            }
        });
    }
    looks
}

/// The next colour; once all are taken the same again, dashed.
fn taken(colours: &[RGBColor], next: &mut usize, width: u32) -> Look {
    let (colour, round) = (colours[*next % colours.len()], *next / colours.len());
    *next += 1;
    Look { colour, width, dashes: DASHES[round % DASHES.len()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::{Line, Panel};

    fn chart(panels: &[&[&str]]) -> Chart {
        let line = |name: &&str| Line { name: (*name).to_owned(), ..Line::default() };
        let panel = |names: &&[&str]| Panel { lines: names.iter().map(line).collect(), ..Panel::default() };
        Chart { title: String::new(), panels: panels.iter().map(panel).collect() }
    }

    #[test]
    fn a_name_has_the_same_look_in_every_panel_and_mainstay_in_every_chart() {
        let one = chart(&[&["random", "mainstay"], &["tower_ewma", "random"]]);
        let other = chart(&[&["mainstay", "mainstay_slo"]]);
        assert_eq!(looks(&one)["mainstay"], looks(&other)["mainstay"]);
        assert_ne!(looks(&one)["random"], looks(&one)["tower_ewma"]);
        assert_ne!(looks(&other)["mainstay"].colour, looks(&other)["mainstay_slo"].colour);
    }

    #[test]
    fn no_two_of_fifteen_rivals_and_as_many_variants_look_alike() {
        let of = |kind: &'static str| (0..15).map(move |index| format!("{kind} {index}"));
        let names: Vec<String> = of("rival").chain(of("mainstay_")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let chart = chart(&[&names]);
        let looks: Vec<Look> = looks(&chart).into_values().collect();
        for (index, look) in looks.iter().enumerate() {
            assert!(!looks[..index].contains(look));
        }
    }
}
