// Asks an edged board a question from an ESP32 and prints the answer on the serial port.
// Libraries: PubSubClient (MQTT 3.1.1) and, for the answer's JSON, ArduinoJson 7.
//
// PubSubClient publishes with QoS 0 only, so a question may be lost on its way. It carries an id and is asked again
// until a reply comes: the board computes it once, however often it hears it.

#include <ArduinoJson.h>
#include <PubSubClient.h>
#include <WiFi.h>

const char *WIFI = "network";
const char *WIFI_PASSWORD = "secret";
const char *BROKER = "192.168.1.10";
const char *NODE = "shed";            // the board's node.id
const char *CLIENT = "esp32-kitchen"; // this device; with accounts at the broker: its user name
const unsigned long AGAIN_MS = 10000; // no reply: ask again
const unsigned long LATER_MS = 300000; // accepted, but no answer: ask again, the board may have been replaced
const unsigned long EVERY_MS = 600000; // a question every ten minutes

WiFiClient wifi;
PubSubClient mqtt(wifi);
char jobId[64 + 10]; // the longest name, "-", eight digits
String question;
bool waiting = false; // for the terminal message
bool heard = false;   // any reply to this question
unsigned long asked = 0;
unsigned long nextQuestion = 0;

void publishQuestion() {
  JsonDocument json;
  json["id"] = jobId;
  json["prompt"] = question;
  json["stream"] = false; // one message instead of many
  json["max_tokens"] = 150;
  json["reasoning"]["mode"] = "hide";
  String payload;
  serializeJson(json, payload);
  String topic = String("edged/v1/node/") + NODE + "/ask/" + CLIENT;
  mqtt.publish(topic.c_str(), payload.c_str());
  asked = millis();
}

void ask(const String &text) {
  // The id must differ from all earlier ones, those before a restart too.
  snprintf(jobId, sizeof jobId, "%s-%08lx", CLIENT, (unsigned long)esp_random());
  question = text;
  waiting = true;
  heard = false;
  publishQuestion();
}

void onMessage(char *, byte *payload, unsigned int length) {
  JsonDocument reply;
  if (deserializeJson(reply, payload, length) || reply["id"] != jobId) return;
  heard = true;
  const char *type = reply["type"];
  if (strcmp(type, "done") == 0) {
    waiting = false;
    Serial.println(reply["text"].as<const char *>());
  } else if (strcmp(type, "cancelled") == 0) {
    waiting = false;
  } else if (strcmp(type, "error") == 0) {
    Serial.println(reply["message"].as<const char *>()); // one sentence that says what to change
    if (reply["retry_after_ms"].is<unsigned long>()) {
      heard = false; // busy or hot: asked again when AGAIN_MS have passed
      asked = millis() + reply["retry_after_ms"].as<unsigned long>() - AGAIN_MS;
    } else {
      waiting = false;
    }
  }
}

void connect() {
  if (WiFi.status() != WL_CONNECTED) {
    WiFi.begin(WIFI, WIFI_PASSWORD);
    while (WiFi.status() != WL_CONNECTED) delay(250);
  }
  while (!mqtt.connected()) {
    if (mqtt.connect(CLIENT)) { // mqtt.connect(CLIENT, user, password) where the broker asks for them
      String answers = String("edged/v1/client/") + CLIENT + "/answer/+";
      mqtt.subscribe(answers.c_str(), 1);
      heard = false; // what came while we were away is lost: ask again, it is answered from the journal
    } else {
      delay(2000);
    }
  }
}

void setup() {
  Serial.begin(115200);
  mqtt.setServer(BROKER, 1883);
  mqtt.setBufferSize(8192); // PubSubClient drops what is larger than its buffer: 256 bytes unless told
  mqtt.setCallback(onMessage);
}

void loop() {
  connect();
  mqtt.loop();
  if (!waiting && (long)(millis() - nextQuestion) >= 0) {
    nextQuestion = millis() + EVERY_MS;
    ask(String("The fridge is at ") + String(9.5, 1) + " C. Is that too warm? Answer in one sentence.");
  }
  if (waiting && (long)(millis() - asked) >= (long)(heard ? LATER_MS : AGAIN_MS)) publishQuestion();
}
