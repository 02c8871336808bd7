//! Images in the Crystallographic Binary File format, as PILATUS and EIGER detectors write them: a text header, then
//! 32-bit counts as byte offsets, under a Content-MD5.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use md5::{Digest, Md5};

/// Stands between the header and the binary data.
const BINARY_MAGIC: [u8; 4] = [0x0c, 0x1a, 0x04, 0xd5];
/// Zeros after the data, for readers that read ahead.
const PADDING_BYTES: usize = 4095;
/// The binary section begins within this many bytes of a file, or it is no CBF image.
const HEADER_MAX_BYTES: usize = 64 * 1024;

/// A module's pixels and the gaps between modules, of PILATUS detectors.
const MODULE: (usize, usize) = (487, 195);
const GAP: (usize, usize) = (7, 17);
/// Counts of a pixel that is not there, and of one that does not work.
const NO_PIXEL: i32 = -1;
const DEAD_PIXEL: i32 = -2;

/// A detector's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    model: &'static str,
    width: usize,
    height: usize,
}

const PILATUS: [Geometry; 3] = [
    Geometry { model: "PILATUS 100K, S/N 1-0042", width: 487, height: 195 },
    Geometry { model: "PILATUS 2M, S/N 24-0042", width: 1475, height: 1679 },
    Geometry { model: "PILATUS 6M, S/N 60-0042", width: 2463, height: 2527 },
];

impl Geometry {
    /// The detector whose images have about `bytes` bytes: a real one where there is one, else a square.
    pub fn for_size(bytes: u64) -> Self {
        let near = |known: &&Geometry| (known.pixels() as f64 / bytes.max(1) as f64 - 1.0).abs() < 0.1;
        PILATUS.iter().find(near).copied().unwrap_or_else(|| {
            // A pixel takes about one byte; header and padding about 6 kB.
            let side = (bytes.saturating_sub(6000) as f64).sqrt().clamp(16.0, 20_000.0) as usize;
            Geometry { model: "PILATUS, simulated", width: side, height: side }
        })
    }

    fn pixels(self) -> usize {
        self.width * self.height
    }
}

/// One image's counts, compressed; its header is made anew for each file.
#[derive(Debug)]
pub struct Frame {
    geometry: Geometry,
    /// From the binary section's boundary to the end of the file.
    body: Vec<u8>,
}

impl Frame {
    /// Scattering background, a few hundred reflections, module gaps and dead pixels.
    pub fn new(geometry: Geometry, seed: u64) -> Self {
        let data = compress(&counts(geometry, seed));
        Self { geometry, body: binary_section(geometry, &data) }
    }

    /// The part of the file before [`Frame::body`]: different for each run and number, and each time.
    pub fn head(&self, run: u64, number: u64) -> Vec<u8> {
        let when = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6f");
        let (beam_x, beam_y) = (self.geometry.width as f64 / 2.0, self.geometry.height as f64 / 2.0);
        let angle = (number - 1) as f64 * 0.1;
        let model = self.geometry.model;
        format!(
            "###CBF: VERSION 1.5, CBFlib v0.7.8 - PILATUS detectors\r\n\r\n\
             data_frame_{run:03}_{number:05}\r\n\r\n\
             _array_data.header_convention \"PILATUS_1.2\"\r\n\
             _array_data.header_contents\r\n;\r\n\
             # Detector: {model}\r\n\
             # {when}\r\n\
             # Pixel_size 172e-6 m x 172e-6 m\r\n\
             # Silicon sensor, thickness 0.000450 m\r\n\
             # Exposure_time 0.0090000 s\r\n\
             # Exposure_period 0.0100000 s\r\n\
             # Tau = 0 s\r\n\
             # Count_cutoff 1048575 counts\r\n\
             # Threshold_setting: 6400 eV\r\n\
             # Gain_setting: autog (vrf = 1.000)\r\n\
             # N_excluded_pixels = 0\r\n\
             # Image_path: simulated by ppu-uringd\r\n\
             # Wavelength 0.97946 A\r\n\
             # Detector_distance 0.35100 m\r\n\
             # Beam_xy ({beam_x:.2}, {beam_y:.2}) pixels\r\n\
             # Filter_transmission 0.2500\r\n\
             # Start_angle {angle:.4} deg.\r\n\
             # Angle_increment 0.1000 deg.\r\n\
             # Oscillation_axis X.CW\r\n\
             # N_oscillations 1\r\n;\r\n\r\n"
        )
        .into_bytes()
    }

    /// The rest of the file.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// What a CBF image says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// Its Content-MD5 is that of its binary data.
    Proven,
    /// It has none (some EIGER files do not).
    Unsaid,
}

/// Why bytes are not a whole CBF image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CbfError {
    /// No binary section.
    #[error("no CBF binary section")]
    NoBinary,
    /// Without X-Binary-Size, or with a wrong one.
    #[error("X-Binary-Size is missing or not a number")]
    NoSize,
    /// Shorter than it says.
    #[error("{is} bytes of binary data, {said} said")]
    Short {
        /// By the header.
        said: usize,
        /// Present.
        is: usize,
    },
    /// The data is not what the detector wrote.
    #[error("Content-MD5 is {said}, the data has {is}")]
    Md5 {
        /// By the header.
        said: String,
        /// Of the data.
        is: String,
    },
}

/// Compares a CBF image with its own Content-MD5.
///
/// # Errors
/// [`CbfError`]: it is no CBF image, or not a whole one.
pub fn check(file: &[u8]) -> Result<Integrity, CbfError> {
    let searched = &file[..file.len().min(HEADER_MAX_BYTES)];
    let magic = searched.windows(4).position(|bytes| bytes == BINARY_MAGIC).ok_or(CbfError::NoBinary)?;
    let header = String::from_utf8_lossy(&file[..magic]);
    let field = |name: &str| {
        header.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let said: usize =
        field("X-Binary-Size").and_then(|digits| digits.parse().ok()).ok_or(CbfError::NoSize)?;
    let data = &file[magic + BINARY_MAGIC.len()..];
    let data = data.get(..said).ok_or(CbfError::Short { said, is: data.len() })?;
    let Some(written) = field("Content-MD5") else { return Ok(Integrity::Unsaid) };
    let is = content_md5(data);
    if is == written { Ok(Integrity::Proven) } else { Err(CbfError::Md5 { said: written.to_owned(), is }) }
}

fn content_md5(data: &[u8]) -> String {
    STANDARD.encode(Md5::digest(data))
}

fn binary_section(geometry: Geometry, data: &[u8]) -> Vec<u8> {
    let mut section = format!(
        "_array_data.data\r\n;\r\n\
         --CIF-BINARY-FORMAT-SECTION--\r\n\
         Content-Type: application/octet-stream;\r\n     conversions=\"x-CBF_BYTE_OFFSET\"\r\n\
         Content-Transfer-Encoding: BINARY\r\n\
         X-Binary-Size: {}\r\n\
         X-Binary-ID: 1\r\n\
         X-Binary-Element-Type: \"signed 32-bit integer\"\r\n\
         X-Binary-Element-Byte-Order: LITTLE_ENDIAN\r\n\
         Content-MD5: {}\r\n\
         X-Binary-Number-of-Elements: {}\r\n\
         X-Binary-Size-Fastest-Dimension: {}\r\n\
         X-Binary-Size-Second-Dimension: {}\r\n\
         X-Binary-Size-Padding: {PADDING_BYTES}\r\n\r\n",
        data.len(),
        content_md5(data),
        geometry.pixels(),
        geometry.width,
        geometry.height
    )
    .into_bytes();
    section.extend_from_slice(&BINARY_MAGIC);
    section.extend_from_slice(data);
    section.resize(section.len() + PADDING_BYTES, 0);
    section.extend_from_slice(b"\r\n--CIF-BINARY-FORMAT-SECTION----\r\n;\r\n\r\n");
    section
}

/// Each count as its difference from the one before: one byte, or 0x80 and two, or 0x80 0x8000 and four.
fn compress(counts: &[i32]) -> Vec<u8> {
    let mut data = Vec::with_capacity(counts.len() + counts.len() / 16);
    let mut last = 0i32;
    for &count in counts {
        let delta = count.wrapping_sub(last);
        last = count;
        if let Some(small) = i8::try_from(delta).ok().filter(|&small| small != i8::MIN) {
            data.push(small as u8);
        } else if let Some(medium) = i16::try_from(delta).ok().filter(|&medium| medium != i16::MIN) {
            data.push(0x80);
            data.extend_from_slice(&medium.to_le_bytes());
        } else {
            data.extend_from_slice(&[0x80, 0x00, 0x80]);
            data.extend_from_slice(&delta.to_le_bytes());
        }
    }
    data
}

fn counts(geometry: Geometry, seed: u64) -> Vec<i32> {
    let Geometry { width, height, .. } = geometry;
    let mut random = Random(seed);
    let mut counts = Vec::with_capacity(geometry.pixels());
    let (centre_x, centre_y) = (width as f64 / 2.0, height as f64 / 2.0);
    for y in 0..height {
        let gap_row = y % (MODULE.1 + GAP.1) >= MODULE.1;
        for x in 0..width {
            let bits = random.next();
            counts.push(if gap_row || x % (MODULE.0 + GAP.0) >= MODULE.0 {
                NO_PIXEL
            } else if bits.is_multiple_of(65_537) {
                DEAD_PIXEL
            } else {
                // Scattering falls with the distance from the beam; the number of one bits is close to Poisson's noise.
                let away = ((x as f64 - centre_x) / centre_x).hypot((y as f64 - centre_y) / centre_y);
                let trials = (16.0 - 11.0 * away.min(1.0)) as u32;
                (bits & ((1 << trials) - 1)).count_ones() as i32
            });
        }
    }
    reflections(&mut counts, geometry, &mut random);
    counts
}

/// Round peaks of a few pixels, most of them weak.
fn reflections(counts: &mut [i32], geometry: Geometry, random: &mut Random) {
    let Geometry { width, height, .. } = geometry;
    for _ in 0..1 + geometry.pixels() / 8000 {
        let (x, y) = (random.below(width), random.below(height));
        let strength = 10f64.powf(1.0 + 3.8 * random.below(1000) as f64 / 1000.0);
        for near_y in y.saturating_sub(3)..(y + 4).min(height) {
            for near_x in x.saturating_sub(3)..(x + 4).min(width) {
                let distance = (near_x.abs_diff(x).pow(2) + near_y.abs_diff(y).pow(2)) as f64;
                let pixel = &mut counts[near_y * width + near_x];
                if *pixel >= 0 {
                    *pixel += (strength * (-distance / 2.0).exp()) as i32;
                }
            }
        }
    }
}

/// SplitMix64: equal seeds give equal images.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(size: u64) -> Vec<u8> {
        let frame = Frame::new(Geometry::for_size(size), 1);
        [frame.head(1, 1).as_slice(), frame.body()].concat()
    }

    #[test]
    fn sizes_are_about_what_was_asked_for() {
        for size in [20_000u64, 100_000, 1_000_000, 2_400_000, 6_200_000] {
            let is = image(size).len() as f64;
            assert!((is / size as f64 - 1.0).abs() < 0.12, "{size}: {is}");
        }
    }

    #[test]
    fn images_prove_themselves_and_damage_shows() {
        let mut file = image(100_000);
        assert_eq!(check(&file), Ok(Integrity::Proven));
        let at = file.len() - 20_000;
        file[at] ^= 1;
        assert!(matches!(check(&file), Err(CbfError::Md5 { .. })));
        file.truncate(50_000);
        assert!(matches!(check(&file), Err(CbfError::Short { .. })));
        assert_eq!(check(b"no image"), Err(CbfError::NoBinary));
    }

    #[test]
    fn frames_differ() {
        let geometry = Geometry::for_size(20_000);
        assert_ne!(Frame::new(geometry, 1).body(), Frame::new(geometry, 2).body());
        let frame = Frame::new(geometry, 1);
        assert_ne!(frame.head(1, 1), frame.head(1, 2));
    }

    /// The published algorithm, read backwards.
    fn decompress(mut data: &[u8]) -> Vec<i32> {
        let mut counts = Vec::new();
        let mut last = 0i32;
        let mut take = |n: usize| {
            let (head, tail) = data.split_at_checked(n)?;
            data = tail;
            Some(head)
        };
        while let Some(first) = take(1) {
            let mut delta = i32::from(first[0] as i8);
            if first[0] == 0x80 {
                delta = i32::from(i16::from_le_bytes(take(2).unwrap().try_into().unwrap()));
                if delta == i32::from(i16::MIN) {
                    delta = i32::from_le_bytes(take(4).unwrap().try_into().unwrap());
                }
            }
            last = last.wrapping_add(delta);
            counts.push(last);
        }
        counts
    }

    proptest! {
        #[test]
        fn compression_is_lossless(counts in proptest::collection::vec(prop_oneof![
            -200i32..200, -40_000i32..40_000, any::<i32>(), Just(i32::MIN), Just(-128), Just(-32768)
        ], 0..200)) {
            prop_assert_eq!(decompress(&compress(&counts)), counts);
        }

        #[test]
        fn check_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in any::<u64>()) {
            let _ = check(&bytes);
            let mut file = format!("X-Binary-Size: {size}\r\n").into_bytes();
            file.extend_from_slice(&BINARY_MAGIC);
            file.extend_from_slice(&bytes);
            let _ = check(&file);
        }
    }
}
