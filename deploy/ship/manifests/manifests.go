// Package manifests reads Walkey's Kubernetes manifests as the API server would, and finds what does not fit together in them.
//
// It builds them with the library of `kubectl kustomize` and decodes them strictly: a field that the API does not know, or of another
// type, is an error. What a cluster does with them it can't tell.
package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Set is what one overlay makes.
type Set struct {
	Objects      []runtime.Object
	Workloads    []Workload
	Services     []*core.Service
	ConfigMaps   map[string]*core.ConfigMap
	Secrets      map[string]*core.Secret
	Policies     []*networking.NetworkPolicy
	Budgets      []*policy.PodDisruptionBudget
	Autoscalers  []*autoscaling.HorizontalPodAutoscaler
	Monitors     []*monitoring.ServiceMonitor
	Alerts       []*monitoring.PrometheusRule
	Accounts     []*core.ServiceAccount
	Deployments  map[string]*apps.Deployment
	StatefulSets []*apps.StatefulSet
}

// Workload is something that makes pods.
type Workload struct {
	Kind, Name string
	Selector   *meta.LabelSelector // nil: a job
	Template   *core.PodTemplateSpec
}

// Build makes the manifests of a kustomization.
func Build(folder string) ([]byte, error) {
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	if err != nil {
		return nil, fmt.Errorf("building %s: %w", folder, err)
	}
	return made.AsYaml()
}

// Decode reads manifests strictly.
func Decode(text []byte) (*Set, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, autoscaling.AddToScheme, batch.AddToScheme, core.AddToScheme, monitoring.AddToScheme, networking.AddToScheme, policy.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("the API's types: %w", err)
		}
	}
	serializer := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true, Strict: true})
	s := &Set{ConfigMaps: map[string]*core.ConfigMap{}, Secrets: map[string]*core.Secret{}, Deployments: map[string]*apps.Deployment{}}
	documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	buffer := make([]byte, len(text)+1)
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, fmt.Errorf("splitting the manifests: %w", err)
		}
		object, kind, err := serializer.Decode(buffer[:n], nil, nil)
		if err != nil {
			return nil, fmt.Errorf("decoding a manifest: %w\n%s", err, buffer[:n])
		}
		if err := s.add(object); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
	}
}

func (s *Set) add(object runtime.Object) error {
	s.Objects = append(s.Objects, object)
	switch o := object.(type) {
	case *apps.Deployment:
		s.Deployments[o.Name] = o
		s.Workloads = append(s.Workloads, Workload{o.Kind, o.Name, o.Spec.Selector, &o.Spec.Template})
	case *apps.StatefulSet:
		s.StatefulSets = append(s.StatefulSets, o)
		s.Workloads = append(s.Workloads, Workload{o.Kind, o.Name, o.Spec.Selector, &o.Spec.Template})
	case *batch.Job:
		s.Workloads = append(s.Workloads, Workload{o.Kind, o.Name, nil, &o.Spec.Template})
	case *core.Service:
		s.Services = append(s.Services, o)
	case *core.ConfigMap:
		s.ConfigMaps[o.Name] = o
	case *core.Secret:
		s.Secrets[o.Name] = o
	case *core.ServiceAccount:
		s.Accounts = append(s.Accounts, o)
	case *networking.NetworkPolicy:
		s.Policies = append(s.Policies, o)
	case *policy.PodDisruptionBudget:
		s.Budgets = append(s.Budgets, o)
	case *autoscaling.HorizontalPodAutoscaler:
		s.Autoscalers = append(s.Autoscalers, o)
	case *monitoring.ServiceMonitor:
		s.Monitors = append(s.Monitors, o)
	case *monitoring.PrometheusRule:
		s.Alerts = append(s.Alerts, o)
	case *core.Namespace:
	default:
		return errors.New("a kind that nothing here checks")
	}
	return nil
}

// Containers are all containers of a pod, those that run first included.
func Containers(t *core.PodTemplateSpec) []core.Container {
	return append(append([]core.Container{}, t.Spec.InitContainers...), t.Spec.Containers...)
}

// Environment is what a container gets: the ConfigMaps and its own variables. Of what comes from elsewhere the value is empty.
func (s *Set) Environment(c *core.Container) map[string]string {
	env := map[string]string{}
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef == nil {
			continue
		}
		if m := s.ConfigMaps[from.ConfigMapRef.Name]; m != nil {
			for name, value := range m.Data {
				env[name] = value
			}
		}
	}
	for _, v := range c.Env {
		env[v.Name] = v.Value
	}
	return env
}
