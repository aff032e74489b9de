package manifests

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	podsecurity "k8s.io/pod-security-admission/policy"
)

// drain is how long requests may take to end after SIGTERM, in seconds (internal/program).
const drain = 20

// external are ConfigMaps and Secrets that users make themselves, as docs/kubernetes.md tells.
var external = []string{"walkey-ca"}

// checker gathers what is wrong.
type checker struct {
	*Set
	problems []string
}

func (c *checker) add(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// Check gives what does not fit together.
func (s *Set) Check() []string {
	c := &checker{Set: s}
	security, err := podsecurity.NewEvaluator(podsecurity.DefaultChecks())
	if err != nil {
		c.add("the Pod Security checks: %v", err)
		return c.problems
	}
	for _, w := range s.Workloads {
		c.workload(w)
		for _, result := range security.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}, &w.Template.ObjectMeta, &w.Template.Spec) {
			if !result.Allowed {
				c.add("%s %s is not restricted: %s (%s)", w.Kind, w.Name, result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
	}
	c.deployments()
	c.services()
	c.selections()
	c.policies()
	return c.problems
}

func (c *checker) workload(w Workload) {
	where := w.Kind + " " + w.Name
	if w.Selector != nil && !matches(w.Selector, w.Template.Labels) {
		c.add("%s does not select its own pods", where)
	}
	spec := &w.Template.Spec
	if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
		c.add("%s: enableServiceLinks is not false", where)
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		c.add("%s mounts a token", where)
	}
	if !slices.ContainsFunc(c.Accounts, func(a *core.ServiceAccount) bool {
		return a.Name == spec.ServiceAccountName && a.AutomountServiceAccountToken != nil && !*a.AutomountServiceAccountToken
	}) {
		c.add("%s: there is no ServiceAccount %q without a token", where, spec.ServiceAccountName)
	}
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = true
		switch {
		case v.ConfigMap != nil:
			c.named(where, "ConfigMap", v.ConfigMap.Name, nil)
		case v.Secret != nil && (v.Secret.Optional == nil || !*v.Secret.Optional):
			c.named(where, "Secret", v.Secret.SecretName, nil)
		}
	}
	for _, set := range c.StatefulSets {
		for _, claim := range set.Spec.VolumeClaimTemplates {
			volumes[claim.Name] = volumes[claim.Name] || w.Kind == "StatefulSet" && set.Name == w.Name
		}
	}
	for _, container := range Containers(w.Template) {
		c.container(where+", container "+container.Name, &container, volumes)
	}
}

// named looks for a ConfigMap or Secret, and for a key in it.
func (c *checker) named(where, kind, name string, key *string) {
	if slices.Contains(external, name) {
		return
	}
	keys := map[string]bool{}
	found := false
	if m := c.ConfigMaps[name]; kind == "ConfigMap" && m != nil {
		found = true
		for k := range m.Data {
			keys[k] = true
		}
	}
	if s := c.Secrets[name]; kind == "Secret" && s != nil {
		found = true
		for k := range s.Data {
			keys[k] = true
		}
	}
	switch {
	case !found:
		c.add("%s: there is no %s %s", where, kind, name)
	case key != nil && !keys[*key]:
		c.add("%s: %s %s has no %s", where, kind, name, *key)
	}
}

func (c *checker) container(where string, container *core.Container, volumes map[string]bool) {
	for _, from := range container.EnvFrom {
		if from.ConfigMapRef != nil {
			c.named(where, "ConfigMap", from.ConfigMapRef.Name, nil)
		}
	}
	for _, v := range container.Env {
		if v.ValueFrom != nil && v.ValueFrom.SecretKeyRef != nil {
			c.named(where, "Secret", v.ValueFrom.SecretKeyRef.Name, &v.ValueFrom.SecretKeyRef.Key)
		}
	}
	for _, m := range container.VolumeMounts {
		if !volumes[m.Name] {
			c.add("%s mounts %s, which is no volume", where, m.Name)
		}
	}
	c.resources(where, container)
	ports := map[string]bool{}
	for _, p := range container.Ports {
		ports[p.Name] = true
	}
	for name, probe := range map[string]*core.Probe{"startup": container.StartupProbe, "liveness": container.LivenessProbe, "readiness": container.ReadinessProbe} {
		if probe != nil && probe.HTTPGet != nil && !ports[probe.HTTPGet.Port.StrVal] {
			c.add("%s: its %s probe asks port %s, which it does not have", where, name, probe.HTTPGet.Port.String())
		}
	}
}

func (c *checker) resources(where string, container *core.Container) {
	r := container.Resources
	for _, name := range []core.ResourceName{core.ResourceCPU, core.ResourceMemory} {
		request, asked := r.Requests[name]
		limit, limited := r.Limits[name]
		switch {
		case !asked:
			c.add("%s requests no %s", where, name)
		case limited && request.Cmp(limit) > 0:
			c.add("%s requests more %s than its limit", where, name)
		case !limited && name == core.ResourceMemory:
			c.add("%s has no limit of memory", where)
		}
	}
	for _, v := range container.Env {
		if v.Name != "GOMEMLIMIT" {
			continue
		}
		aim, err := parseMemory(v.Value)
		if limit := r.Limits.Memory().Value(); err != nil || aim > limit*9/10 || aim < limit/2 {
			c.add("%s: GOMEMLIMIT %s is not between half and nine tenths of the limit of %d bytes", where, v.Value, limit)
		}
	}
}

// parseMemory reads GOMEMLIMIT.
func parseMemory(text string) (int64, error) {
	number, ok := strings.CutSuffix(text, "MiB")
	if !ok {
		return 0, fmt.Errorf("%q is not in MiB", text)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64>>20 {
		return 0, fmt.Errorf("%q is no size", text)
	}
	return n << 20, nil
}

// deployments checks how new versions come.
func (c *checker) deployments() {
	for _, d := range c.Deployments {
		if !strings.HasPrefix(d.Name, "walkey-") {
			continue
		}
		rolling := d.Spec.Strategy.RollingUpdate
		if rolling == nil || rolling.MaxUnavailable == nil || *rolling.MaxUnavailable != intstr.FromInt32(0) {
			c.add("Deployment %s: an update makes pods unavailable", d.Name)
		}
		if len(d.Spec.Template.Spec.TopologySpreadConstraints) == 0 {
			c.add("Deployment %s is not spread", d.Name)
		}
		container := &d.Spec.Template.Spec.Containers[0]
		stop := int64(0)
		if l := container.Lifecycle; l != nil && l.PreStop != nil && l.PreStop.Sleep != nil {
			stop = l.PreStop.Sleep.Seconds
		}
		if d.Name == "walkey-api" && stop == 0 {
			c.add("Deployment %s: nothing waits until its pods get no more requests", d.Name)
		}
		if grace := d.Spec.Template.Spec.TerminationGracePeriodSeconds; grace == nil || *grace < stop+drain {
			c.add("Deployment %s: its pods are killed before requests have ended", d.Name)
		}
		if container.ReadinessProbe == nil || container.LivenessProbe == nil || container.StartupProbe == nil {
			c.add("Deployment %s lacks a probe", d.Name)
		}
	}
}

// pods are the workloads whose pods a selector finds.
func (c *checker) pods(selector *meta.LabelSelector) (found []Workload) {
	for _, w := range c.Workloads {
		if matches(selector, w.Template.Labels) {
			found = append(found, w)
		}
	}
	return found
}

func matches(selector *meta.LabelSelector, of map[string]string) bool {
	s, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(of))
}

func (c *checker) services() {
	for _, service := range c.Services {
		pods := c.pods(&meta.LabelSelector{MatchLabels: service.Spec.Selector})
		if len(pods) != 1 {
			c.add("Service %s selects the pods of %d workloads", service.Name, len(pods))
			continue
		}
		for _, port := range service.Spec.Ports {
			if !hasPort(pods[0].Template, port.TargetPort) {
				c.add("Service %s leads to port %s, which its pods do not have", service.Name, port.TargetPort.String())
			}
		}
	}
	for _, m := range c.Monitors {
		found := false
		for _, service := range c.Services {
			if !matches(&m.Spec.Selector, service.Labels) {
				continue
			}
			found = true
			for _, endpoint := range m.Spec.Endpoints {
				if !slices.ContainsFunc(service.Spec.Ports, func(p core.ServicePort) bool { return p.Name == endpoint.Port }) {
					c.add("ServiceMonitor %s asks port %s, which Service %s does not have", m.Name, endpoint.Port, service.Name)
				}
			}
		}
		if !found {
			c.add("ServiceMonitor %s selects no Service", m.Name)
		}
	}
}

func hasPort(t *core.PodTemplateSpec, port intstr.IntOrString) bool {
	for _, container := range t.Spec.Containers {
		for _, p := range container.Ports {
			if p.Name == port.StrVal && port.Type == intstr.String || p.ContainerPort == port.IntVal && port.Type == intstr.Int {
				return true
			}
		}
	}
	return false
}

func (c *checker) selections() {
	for _, b := range c.Budgets {
		if len(c.pods(b.Spec.Selector)) != 1 {
			c.add("PodDisruptionBudget %s does not select the pods of one workload", b.Name)
		}
	}
	for _, a := range c.Autoscalers {
		target := c.Deployments[a.Spec.ScaleTargetRef.Name]
		switch {
		case target == nil || a.Spec.ScaleTargetRef.Kind != "Deployment":
			c.add("HorizontalPodAutoscaler %s scales nothing", a.Name)
		case target.Spec.Replicas != nil:
			c.add("Deployment %s says how many replicas there are, which HorizontalPodAutoscaler %s decides", target.Name, a.Name)
		case a.Spec.MinReplicas == nil || *a.Spec.MinReplicas < 2 || *a.Spec.MinReplicas > a.Spec.MaxReplicas:
			c.add("HorizontalPodAutoscaler %s: its bounds are not sensible", a.Name)
		}
	}
	for _, w := range c.Workloads {
		for _, spread := range w.Template.Spec.TopologySpreadConstraints {
			if !matches(spread.LabelSelector, w.Template.Labels) {
				c.add("%s %s is spread by what other pods do", w.Kind, w.Name)
			}
		}
	}
}

func (c *checker) policies() {
	denied := false
	for _, p := range c.Policies {
		if len(p.Spec.PodSelector.MatchLabels)+len(p.Spec.PodSelector.MatchExpressions) == 0 {
			denied = denied || len(p.Spec.PolicyTypes) == 2 && len(p.Spec.Ingress)+len(p.Spec.Egress) == 0
			continue
		}
		pods := c.pods(&p.Spec.PodSelector)
		if len(pods) == 0 {
			c.add("NetworkPolicy %s selects no pods", p.Name)
		}
		for _, rule := range p.Spec.Ingress {
			c.peers(p.Name, rule.From)
			for _, port := range rule.Ports {
				if !slices.ContainsFunc(pods, func(w Workload) bool { return hasPort(w.Template, *port.Port) }) {
					c.add("NetworkPolicy %s opens port %s, which its pods do not have", p.Name, port.Port.String())
				}
			}
		}
		for _, rule := range p.Spec.Egress {
			c.peers(p.Name, rule.To)
			if len(rule.Ports) == 0 || len(rule.To) == 0 {
				c.add("NetworkPolicy %s lets everything out", p.Name)
			}
		}
	}
	if !denied {
		c.add("no NetworkPolicy denies what the others do not allow")
	}
}

// peers looks whether pods of the same namespace that a policy names exist.
func (c *checker) peers(name string, peers []networking.NetworkPolicyPeer) {
	for _, peer := range peers {
		if peer.PodSelector != nil && peer.NamespaceSelector == nil && len(c.pods(peer.PodSelector)) == 0 {
			c.add("NetworkPolicy %s names pods that do not exist", name)
		}
	}
}
