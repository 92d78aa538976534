# Asks an edged board a question from MicroPython (umqtt.simple, MQTT 3.1.1) and prints the answer.
#
#   mpremote mip install umqtt.simple
#   mpremote cp ask_edged.py :main.py
#
# The question carries an id, so it may be asked again after a lost connection: it is computed once.

import binascii
import json
import os
import time

from umqtt.simple import MQTTClient

BROKER = "192.168.1.10"
PORT = 1883
NODE = "shed"        # the board's node.id
CLIENT = "pico-1"    # this device's name; with accounts at the broker: its user name
USER = None
PASSWORD = None
PREFIX = "edged"
QUESTION = "The fridge is at 9.5 C. Is that too warm? Answer in one sentence."
WAIT_MS = 120000     # for the whole answer
AGAIN_MS = 10000     # without any reply: ask again
PING_MS = 20000      # below half of keepalive


def ask(question, broker=BROKER, port=PORT, node=NODE, client=CLIENT, prefix=PREFIX):
    """Returns the answer's text. ValueError: the board says what to change; OSError: no answer."""
    # Not the time: without a battery the clock begins anew at each start, and the board knows all ids of the last week.
    job_id = "%s-%s" % (client, binascii.hexlify(os.urandom(6)).decode())
    topic = ("%s/v1/node/%s/ask/%s" % (prefix, node, client)).encode()
    # Bytes, not text: umqtt counts characters where MQTT counts bytes.
    payload = json.dumps(
        {
            "id": job_id,
            "prompt": question,
            "stream": False,  # one message instead of many: less to hold
            "max_tokens": 200,
            "reasoning": {"mode": "hide"},
        }
    ).encode()
    replies = []

    def heard(_topic, message):
        reply = json.loads(message)
        if reply["id"] == job_id:
            replies.append(reply)

    mqtt = MQTTClient(client, broker, port=port, user=USER, password=PASSWORD, keepalive=60)
    mqtt.set_callback(heard)
    mqtt.connect()
    mqtt.subscribe(("%s/v1/client/%s/answer/+" % (prefix, client)).encode(), 1)
    mqtt.publish(topic, payload, qos=1)
    # Ticks, not time(): that jumps when the network sets the clock, and boards have floats of 32 bits, in which its
    # seconds go by steps of 64.
    begun = asked = pinged = time.ticks_ms()
    again = AGAIN_MS
    try:
        while time.ticks_diff(time.ticks_ms(), begun) < WAIT_MS:
            mqtt.check_msg()
            while replies:
                reply = replies.pop(0)
                if reply["type"] == "done":
                    return reply["text"]
                if reply["type"] != "error":
                    again = WAIT_MS  # accepted: now it is in good hands
                elif "retry_after_ms" in reply:  # busy or hot
                    asked, again = time.ticks_ms(), reply["retry_after_ms"]
                else:
                    raise ValueError(reply["message"])
            if time.ticks_diff(time.ticks_ms(), asked) >= again:
                mqtt.publish(topic, payload, qos=1)
                asked, again = time.ticks_ms(), AGAIN_MS
            if time.ticks_diff(time.ticks_ms(), pinged) >= PING_MS:
                mqtt.ping()
                pinged = time.ticks_ms()
            time.sleep_ms(50)
        raise OSError("no answer within %d s" % (WAIT_MS // 1000))
    finally:
        mqtt.disconnect()


if __name__ == "__main__":
    print(ask(QUESTION))
