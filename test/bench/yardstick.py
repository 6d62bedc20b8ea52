"""The original design: whatever is published is acted upon at once, and nothing is kept."""
import json
import sys

import psutil
import redis

host, port = sys.argv[1].split(":")
pubsub = redis.Redis(host=host, port=int(port)).pubsub(ignore_subscribe_messages=True)
pubsub.subscribe("high_severity_alerts")
pubsub.get_message(timeout=5)
print("ready", file=sys.stderr, flush=True)

for message in pubsub.listen():
    alert = json.loads(message["data"])
    pid = alert["actionable_pid"]
    try:
        process = psutil.Process(pid)
        process.terminate()
        try:
            process.wait(timeout=1)
        except psutil.TimeoutExpired:
            process.kill()
        print(f"[{alert['level']}] {alert['title']}: terminated PID {pid}", flush=True)
    except psutil.Error as error:
        print(f"[{alert['level']}] {alert['title']}: PID {pid}: {error}", flush=True)
