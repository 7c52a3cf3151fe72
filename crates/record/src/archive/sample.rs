//! Consultations that nobody had: made up, the same for the same seed. For benches and tests.
//!
//! Words are drawn from a list by Zipf's law and joined to sentences, with figures, names of fields and hashes as real
//! events have them. Sentences made from templates would pack several times better than what people say.

use bytes::Bytes;
use caudal_store::{Head, Record, Stream, StreamId, Time, link, origin};
use fastrand::Rng;
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

const WORDS: &str = "de la que el en y a los del se las por un para con no una su al lo como más pero sus le ya o este sí \
     porque esta entre cuando muy sin sobre también me hasta hay donde quien desde todo nos durante todos uno les ni \
     contra otros ese eso ante ellos e esto mí antes algunos qué unos yo otro otras otra él tanto esa estos mucho nada \
     paciente dolor refiere presenta cefalea fiebre tos náusea vómito mareo fatiga insomnio ansiedad presión arterial \
     frecuencia cardiaca respiratoria temperatura saturación oxígeno glucosa peso talla abdomen tórax espalda rodilla \
     hombro cuello garganta oído ojo piel mano pie izquierdo derecho superior inferior leve moderado intenso agudo \
     crónico constante intermitente punzante opresivo quemante irradia brazo pierna mandíbula hace tres cuatro cinco \
     siete días semanas meses años ayer hoy mañana noche madrugada después comer caminar subir escaleras esfuerzo \
     reposo medicamento toma tomó miligramos paracetamol ibuprofeno metformina losartán omeprazol amoxicilina \
     salbutamol insulina aspirina cada ocho doce horas alergia penicilina ninguna conocida antecedentes familiares \
     diabetes hipertensión asma cirugía apendicectomía cesárea embarazo tabaquismo alcohol niega exploración física \
     consciente orientado hidratado pálido mucosas húmedas murmullo vesicular soplo edema blando depresible \
     ruidos peristálticos normales doctor doctora consulta estudio laboratorio radiografía ultrasonido \
     electrocardiograma resultado pendiente urgencias referencia especialista cardiología neurología seguimiento cita \
     plan tratamiento indicaciones signos alarma regresar empeora mejora evolución favorable diagnóstico probable \
     descartar infección viral bacteriana migraña gastritis lumbalgia bronquitis faringitis anemia cólico renal \
     hidratación dieta ejercicio descanso trabajo estrés familia hijo hija madre esposo siento molesta ardor comezón \
     hinchazón sangre orina evacuaciones apetito sueño respirar garganta seca flemas verdes amarillas transparentes";

const KINDS: [&str; 8] = [
    "MESSAGE_RECEIVED",
    "MESSAGE_RECEIVED",
    "MESSAGE_PROCESSED",
    "EXTRACTION_COMPLETED",
    "SYMPTOMS_UPDATED",
    "LLM_CALL_COMPLETED",
    "COMPLETENESS_CALCULATED",
    "URGENCY_CLASSIFIED",
];

/// What is said of each.
const ABOUT: &[u8] = b"{\"patient_stub\": {}}";
/// A morning in 2025.
const BEGAN: Time = 1_763_712_000_000_000;

/// A consultation of `count` events of about `size` bytes of JSON each.
pub fn consultation(number: u64, count: u64, size: usize) -> (Stream, Vec<Record>) {
    let mut made = consultation_events(number, count, size);
    let records: Vec<Record> = made.by_ref().collect();
    (made.stream(), records)
}

/// The same, one event after the other.
pub fn consultation_events(number: u64, count: u64, size: usize) -> Events {
    let mut random = Rng::with_seed(number);
    let id = StreamId::new("consultation", format!("session_{}", uuid(&mut random).as_simple()));
    let head = Head { sequence: 0, time: BEGAN, chain: origin(&id, BEGAN, ABOUT) };
    let user = format!("user_{}", random.u32(..10_000));
    let meta = format!(
        "{{\"source\": \"fi_consultation_service\", \"user_id\": \"{user}\", \"session_id\": \"{}\", \"timezone\": \
         \"America/Mexico_City\"}}",
        id.name
    );
    Events { random, words: WORDS.split_whitespace().collect(), id, head, meta: meta.into(), count, size }
}

/// Events of the seed's own bench: `event_N_` and a thousand times `x`.
pub fn repeated(count: u64) -> Vec<String> {
    (0..count).map(|number| format!("event_{number}_{}", "x".repeat(1000))).collect()
}

/// Events of a consultation, as they are made.
pub struct Events {
    random: Rng,
    words: Vec<&'static str>,
    id: StreamId,
    head: Head,
    meta: Bytes,
    count: u64,
    size: usize,
}

impl Events {
    /// The stream as it stands after the events that were made.
    pub fn stream(&self) -> Stream {
        let meta = Bytes::from_static(ABOUT);
        Stream { id: self.id.clone(), meta, created: BEGAN, head: self.head, sealed: 0 }
    }

    fn text(&mut self, bytes: usize) -> String {
        let mut text = String::with_capacity(bytes + 16);
        let mut sentence = 0;
        while text.len() < bytes {
            // Zipf: the word of rank r about as often as 1/r.
            let rank = (self.words.len() as f64).powf(self.random.f64()) as usize - 1;
            match self.random.u8(..40) {
                0 => text.push_str(&self.random.u32(1..200).to_string()),
                _ => text.push_str(self.words[rank.min(self.words.len() - 1)]),
            }
            sentence += 1;
            let ends = sentence > 6 && self.random.u8(..6) == 0;
            text.push_str(if ends { ". " } else { " " });
            sentence = if ends { 0 } else { sentence };
        }
        text
    }

    fn body(&mut self, kind: &str) -> String {
        let said = self.text(self.size.saturating_sub(560).max(40));
        let (sure, millis) = ((self.random.f64() * 1e3).round() / 1e3, self.random.u32(200..9_000));
        match kind {
            "MESSAGE_RECEIVED" | "MESSAGE_PROCESSED" => {
                let role = if self.random.bool() { "user" } else { "assistant" };
                format!("{{\"message\": {{\"content\": \"{said}\", \"role\": \"{role}\"}}}}")
            }
            "LLM_CALL_COMPLETED" => format!(
                "{{\"completion_tokens\": {}, \"latency_ms\": {millis}, \"model\": \"clinical-es\", \"prompt_tokens\": {}, \
                 \"response\": \"{said}\"}}",
                self.random.u32(20..600),
                self.random.u32(100..4_000)
            ),
            _ => format!(
                "{{\"completeness\": {sure}, \"notes\": \"{said}\", \"severity\": {}, \"urgency\": \"moderate\"}}",
                self.random.u32(1..11)
            ),
        }
    }
}

fn uuid(random: &mut Rng) -> Uuid {
    Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid()
}

impl Iterator for Events {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        if self.head.sequence == self.count {
            return None;
        }
        let kind = KINDS[self.random.usize(..KINDS.len())];
        let body = Bytes::from(self.body(kind));
        let digest = Sha256::digest(&body).into();
        let time = self.head.time + self.random.i64(50_000..20_000_000);
        let (sequence, id, meta) = (self.head.sequence + 1, uuid(&mut self.random), self.meta.clone());
        let mut record = Record { sequence, time, id, kind: kind.into(), meta, body, digest, chain: [0; 32] };
        record.chain = link(&self.head.chain, &record.leaf());
        self.head = Head { sequence, time, chain: record.chain };
        Some(record)
    }
}
