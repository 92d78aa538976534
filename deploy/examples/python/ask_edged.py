#!/usr/bin/env python3
"""Asks an edged board with paho-mqtt alone (pip install paho-mqtt) and prints the answer as it is written.

    python3 ask_edged.py --broker broker --node shed "Is 85 C hot for a bearing?"

Shows the whole contract in little: MQTT 5, an id, deltas, the terminal message, errors, cancelling with Ctrl-C.
`edged.client` of the package edged does this and more.
"""

import argparse
import json
import queue
import sys
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question")
    parser.add_argument("--broker", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--node", default="shed")
    parser.add_argument("--client", default="example")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds without any reply")
    options = parser.parse_args()

    job_id = f"{options.client}-{uuid.uuid4().hex[:12]}"
    base = "edged/v1"
    answers = f"{base}/client/{options.client}/answer/{job_id}"
    replies: queue.SimpleQueue = queue.SimpleQueue()

    device = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=f"{options.client}-{job_id[-6:]}", protocol=mqtt.MQTTv5
    )
    device.on_connect = lambda *_: device.subscribe(answers, qos=1)
    device.on_subscribe = lambda *_: ask()
    device.on_message = lambda _client, _data, message: replies.put(json.loads(message.payload))

    def ask() -> None:
        """After every connection: a second copy of a question joins the first, it is not computed again."""
        question = {"id": job_id, "prompt": options.question, "reasoning": {"mode": "hide"}}
        properties = Properties(PacketTypes.PUBLISH)
        properties.MessageExpiryInterval = 600  # the deadline
        device.publish(
            f"{base}/node/{options.node}/ask/{options.client}", json.dumps(question), qos=1, properties=properties
        )

    device.connect(options.broker, options.port)
    device.loop_start()
    shown = ""
    try:
        while True:
            reply = replies.get(timeout=options.timeout)
            if reply["type"] == "accepted":
                print(f"[place {reply['position']}, about {reply['eta_ms'] / 1000:.0f} s]", file=sys.stderr)
            elif reply["type"] == "delta":
                print(reply["text"], end="", flush=True)
                shown += reply["text"]
            elif reply["type"] == "done":
                whole = reply["text"]  # deltas may have been lost: this has all of them
                print(whole[len(shown) :] if whole.startswith(shown) else f"\n\n{whole}")
                return 0
            elif reply["type"] == "error":
                print(f"{reply['code']}: {reply['message']}", file=sys.stderr)
                return 1
            elif reply["type"] == "cancelled":
                return 130
    except queue.Empty:
        print(f"no reply within {options.timeout:g} s", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        cancel = {"op": "cancel", "id": job_id}
        device.publish(
            f"{base}/node/{options.node}/control/{options.client}", json.dumps(cancel), qos=1
        ).wait_for_publish(5)
        return 130
    finally:
        device.disconnect()
        device.loop_stop()


if __name__ == "__main__":
    sys.exit(main())
